"""A service written for Zilla's http-kafka binding: it reads `zilla:correlation-id` and
`zilla:reply-to`, and answers with `:status`. It knows nothing of the gateway.

    python3 zilla_service.py BOOTSTRAP COMMANDS
"""

import sys

from confluent_kafka import Consumer, Producer

bootstrap, commands = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": commands,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 20,
})
producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
consumer.subscribe([commands])
while True:
    command = consumer.poll(0.5)
    if command is None or command.error():
        continue
    headers = dict(command.headers())
    method, path = headers[":method"].decode(), headers[":path"].decode()
    producer.produce(
        headers["zilla:reply-to"].decode(),
        f"{method} {path} {command.value().decode()}",
        command.key(),
        headers={
            ":status": "201",
            "zilla:correlation-id": headers["zilla:correlation-id"],
            "content-type": "text/plain",
        },
    )
    producer.flush(10)
