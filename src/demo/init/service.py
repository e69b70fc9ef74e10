"""The @NAME@ service: reads commands, and writes replies and state. docs/writing-a-service.md explains it.

    python3 -m venv .venv && .venv/bin/pip install --quiet --requirement requirements.txt
    .venv/bin/python service.py
"""

import json
import os

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

KAFKA = {"bootstrap.servers": os.environ.get("KAFKA", "127.0.0.1:9092")}
COMMANDS, STATE, SERVICE = "@NAME@-commands", "@STATE@", "@NAME@-service"
REPLIES = "@NAME@-replies"
# A duplicate of a command arrives within twice the gateway's `kafka.delivery_timeout` (30 s).
REMEMBER_MS = 120_000


@DECIDE@


def read_all(topic):
    """Every record of a topic, up to its end."""
    quiet = {"group.id": SERVICE, "enable.auto.commit": False, "enable.partition.eof": True}
    reader = Consumer(KAFKA | quiet | {"isolation.level": "read_committed"})
    unread = set(reader.list_topics(topic, 10).topics[topic].partitions)
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unread])
    while unread:
        record = reader.poll(1)
        if record is None:
            continue
        if not record.error():
            yield record
        elif record.error().code() == KafkaError._PARTITION_EOF:
            unread.discard(record.partition())
        else:
            raise KafkaException(record.error())
    reader.close()


def header(record, name):
    return dict(record.headers() or []).get(name, b"").decode()


def execute(command, state, replies):
    """Returns status and body of the reply, and the state that changed. A duplicate gets the first reply."""
    correlation = header(command, "correlation-id")
    if correlation in replies:
        return *replies[correlation][1:], {}
    try:
        body = json.loads(command.value() or b"{}")
    except ValueError:
        body = None
    key = command.key().decode()
    status, body, changes = decide(header(command, "operation"), key, body, state)
    while replies and command.timestamp()[1] - next(iter(replies.values()))[0] > REMEMBER_MS:
        del replies[next(iter(replies))]
    replies[correlation] = command.timestamp()[1], str(status), json.dumps(body).encode()
    return *replies[correlation][1:], changes


def main():
    producer = Producer(KAFKA | {"transactional.id": SERVICE, "linger.ms": 0})
    producer.init_transactions(30)  # Ends an earlier process: only one may write.
    state = {r.key().decode(): json.loads(r.value()) for r in read_all(STATE) if r.value()}
    replies = {header(r, "correlation-id"): (r.timestamp()[1], header(r, ":status"), r.value()) for r in read_all(REPLIES)}
    # By its instance id, a restarted process takes the place of the earlier one in the group at once.
    group = {"group.id": SERVICE, "group.instance.id": SERVICE, "enable.auto.commit": False}
    consumer = Consumer(KAFKA | group | {"auto.offset.reset": "earliest", "fetch.wait.max.ms": 50})
    consumer.subscribe([COMMANDS])
    print(f"{SERVICE} reads {COMMANDS}", flush=True)
    while True:
        command = consumer.poll(1)
        if command is None:
            continue
        if command.error():
            raise KafkaException(command.error())
        if not header(command, "correlation-id"):
            print(f"skips {command.partition()}@{command.offset()}: it has no correlation-id", flush=True)
            continue
        # Reply, state and offset are one transaction: all of them, or none. After an error the process
        # ends, and the next one reads state and replies again.
        producer.begin_transaction()
        status, body, changes = execute(command, state, replies)
        headers = {"correlation-id": header(command, "correlation-id"), ":status": status}
        headers["content-type"] = "application/json"
        producer.produce(header(command, "reply-to"), body, command.key(), headers=headers)
        for key, value in changes.items():
            state[key] = value
            producer.produce(STATE, json.dumps(value), key)
        offset = TopicPartition(COMMANDS, command.partition(), command.offset() + 1)
        producer.send_offsets_to_transaction([offset], consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        print(f"{header(command, ':method')} {header(command, ':path')}: {status}", flush=True)


if __name__ == "__main__":
    main()
