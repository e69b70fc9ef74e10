"""A payments service that knows the gateway only by its contract (docs/guarantees.md): commands in,
replies out, by librdkafka. Several instances share one consumer group.

A payment debits the payer. The payee is credited by a second command, which the service sends
through the gateways under a key that derives from the payment, as often as it takes.

Replies, balances, offsets and the journal of a batch are one transaction. The journal is the state:
an instance that is assigned a partition reads the partition's journal to the committed offset. The
first record of a correlation id is applied, and later ones get the same reply.
"""

import faulthandler
import http.client
import itertools
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback

from confluent_kafka import Consumer, Producer, TopicPartition

BATCH_MAX = 100
FIRST_BALANCE = 1_000_000
SENDERS = 4
# Longest time of one round, with a journal read or a transaction that waits for its coordinator.
# Now and then librdkafka 2.x does not return from closing a consumer after a broker's death.
ROUND_SECONDS_MAX = 25
CALL_SECONDS_MAX = 15


class Partition:
    """The state of one partition of commands."""

    def __init__(self):
        self.next = 0  # The offset of the next command.
        self.replies = {}  # By correlation id: status and body.
        self.balances = {}
        self.due = {}  # Credits that are not answered yet: payment's correlation id to order.

    def on_entry(self, entry):
        """Applies an entry of the journal."""
        if "done" in entry:
            self.due.pop(entry["done"], None)
            return
        self.next = max(self.next, entry["offset"] + 1)
        if "reply" in entry:
            self.replies[entry["id"]] = entry["reply"]
            self.balances.update(entry["balances"])
            if entry["due"]:
                self.due[entry["id"]] = entry["due"]


class Service:
    def __init__(self, settings):
        self.settings = settings
        self.topics = settings["topics"]
        self.partitions = {}
        self.orders = queue.Queue()  # Credits to send: partition, payment, order.
        self.done = queue.Queue()  # Credits that were answered: partition, payment.
        self.sending = set()
        self.numbers = itertools.count()
        self.log = open(settings["log"], "a", buffering=1)
        for _ in range(SENDERS):
            threading.Thread(target=self.send_credits, daemon=True).start()

    def client(self, **more):
        return {"bootstrap.servers": self.settings["bootstrap"], **more}

    def run(self):
        """Runs until an error, which ends the process: nothing of the open transaction counts, and the
        next instance reads the state anew. Nothing is closed, as that may never return."""
        try:
            self.live()
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def live(self):
        group, name = self.settings["group"], self.settings["name"]
        producer = Producer(
            self.client(**{"transactional.id": f"{group}-{name}", "transaction.timeout.ms": 10_000, "linger.ms": 0})
        )
        producer.init_transactions(CALL_SECONDS_MAX)
        consumer = Consumer(
            self.client(**{
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "session.timeout.ms": 6_000,
                "heartbeat.interval.ms": 1_000,
                "fetch.wait.max.ms": 20,
            })
        )
        consumer.subscribe([self.topics["commands"]], on_assign=self.on_assign, on_revoke=self.on_revoke)
        try:
            self.execute_batches(producer, consumer)
        except SystemExit:
            consumer.close()  # Leaves the group in order.
            raise

    def execute_batches(self, producer, consumer):
        while True:
            # Prints where each thread is, and ends the process.
            faulthandler.dump_traceback_later(ROUND_SECONDS_MAX, exit=True)
            commands = [it for it in consumer.consume(BATCH_MAX, 0.02) if not it.error()]
            done = self.answered()
            if commands or done:
                self.commit(commands, done, producer, consumer)

    def on_assign(self, consumer, assigned):
        committed = consumer.committed(assigned, CALL_SECONDS_MAX)
        for at in committed:
            self.partitions[at.partition] = self.read_journal(at.partition, max(at.offset, 0))
            for payment, order in self.partitions[at.partition].due.items():
                self.order(at.partition, payment, order)
        consumer.assign([TopicPartition(it.topic, it.partition, max(it.offset, 0)) for it in committed])

    def on_revoke(self, _consumer, revoked):
        for at in revoked:
            self.partitions.pop(at.partition, None)

    def read_journal(self, number, committed):
        """The state of a partition whose commands below `committed` have been executed."""
        state = Partition()
        consumer = Consumer(
            self.client(**{"group.id": "journal", "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 20})
        )
        consumer.assign([TopicPartition(self.topics["journal"], number, 0)])
        # Commands have consecutive offsets, and each has an entry in the journal. Markers of one
        # transaction may become visible in one topic before the other.
        quiet = 0
        while state.next < committed or quiet < 3:
            entries = consumer.consume(1_000, 0.1)
            quiet = 0 if entries else quiet + 1
            for entry in entries:
                if not entry.error():
                    state.on_entry(json.loads(entry.value()))
        consumer.close()
        return state

    def answered(self):
        done = []
        while not self.done.empty():
            partition, payment = self.done.get()
            state = self.partitions.get(partition)
            if state and payment in state.due:
                done.append((partition, payment))
        return done

    def commit(self, commands, done, producer, consumer):
        producer.begin_transaction()
        ends, orders = {}, []
        for partition, payment in done:
            self.journal(producer, partition, {"done": payment})
        for command in commands:
            number = command.partition()
            state = self.partitions[number]
            ends[number] = command.offset() + 1
            entry, reply = self.execute(state, command)
            self.journal(producer, number, entry)
            if reply is not None:
                self.reply(producer, command, reply)
            for account, balance in entry.get("balances", {}).items():
                value = json.dumps({"balance": balance})
                producer.produce(self.topics["balances"], value, account, number)
            if entry.get("due"):
                orders.append((number, entry["id"], entry["due"]))
            producer.poll(0)
        if ends:
            offsets = [TopicPartition(self.topics["commands"], at, end) for at, end in ends.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), CALL_SECONDS_MAX)
        producer.commit_transaction(CALL_SECONDS_MAX)
        for order in orders:
            self.order(*order)

    def execute(self, state, command):
        """The entry of the journal, and the reply. The state has the entry applied."""
        headers = {name: value.decode() for name, value in command.headers() or []}
        correlation = headers.get("correlation-id")
        entry = {"offset": command.offset(), "id": correlation}
        if correlation is None:
            state.on_entry(entry)
            return entry, None
        if correlation in state.replies:
            state.on_entry(entry)
            return entry, state.replies[correlation]
        account, order = command.key().decode(), json.loads(command.value())
        balance = state.balances.get(account, FIRST_BALANCE)
        entry["due"] = None
        if "to" not in order:
            entry["reply"] = [200, f"{order['amount']} credited to {account}, id {correlation}"]
            entry["balances"] = {account: balance + order["amount"]}
        elif balance < order["amount"]:
            entry["reply"] = [409, f"{account} has only {balance}, id {correlation}"]
            entry["balances"] = {}
        else:
            entry["reply"] = [200, f"{order['amount']} paid by {account}, id {correlation}"]
            entry["balances"] = {account: balance - order["amount"]}
            entry["due"] = {"to": order["to"], "amount": order["amount"]}
        state.on_entry(entry)
        return entry, entry["reply"]

    def journal(self, producer, number, entry):
        if "done" in entry:
            self.partitions[number].on_entry(entry)
        producer.produce(self.topics["journal"], json.dumps(entry), None, number)

    def reply(self, producer, command, reply):
        headers = dict(command.headers())
        status, body = reply
        producer.produce(
            headers["reply-to"].decode(),
            body,
            command.key(),
            headers={
                "correlation-id": headers["correlation-id"],
                ":status": str(status),
                "content-type": "text/plain",
            },
        )

    def order(self, partition, payment, order):
        if payment not in self.sending:
            self.sending.add(payment)
            self.orders.put((partition, payment, order))

    def send_credits(self):
        """Sends the second command of each payment until it is answered."""
        while True:
            partition, payment, order = self.orders.get()
            gateway = next(self.numbers)
            while True:
                number = next(self.numbers)
                gateway += 1
                attempt = f"{self.settings['name']}-{os.getpid()}-{number}"
                if self.credit(gateway, attempt, payment, order):
                    break
                time.sleep(0.1)
            self.sending.discard(payment)
            self.done.put((partition, payment))

    def credit(self, gateway, attempt, payment, order):
        address = self.settings["gateways"][gateway % len(self.settings["gateways"])]
        row = {"attempt": attempt, "key": f"credit-{payment}", "sent": time.time()}
        try:
            connection = http.client.HTTPConnection(address, timeout=15)
            headers = {
                "Idempotency-Key": f'"credit-{payment}"',
                "Content-Type": "application/json",
                "X-Attempt": attempt,
            }
            body = json.dumps({"amount": order["amount"]})
            connection.request("POST", f"/accounts/{order['to']}/credits", body, headers)
            answer = connection.getresponse()
            row["status"], row["body"] = answer.status, answer.read().decode()
            connection.close()
        except (OSError, http.client.HTTPException):
            row["status"], row["body"] = 0, ""
        row["ended"] = time.time()
        self.log.write(json.dumps(row) + "\n")
        return row["status"] == 200


if __name__ == "__main__":
    # payments.py asks for it when nothing moves.
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Service(json.loads(sys.argv[1])).run()
