"""Payments through two gateways on a cluster of three nodes, with faults of everything.

    python3 payments.py SETTINGS    (JSON; started by the test `ledger::payments`, which owns the cluster)

Two gateway processes, two instances of payments_service.py, clients that retry a share of their
commands under the same key at the other gateway. Gateways are killed and frozen, a leader is killed
and frozen, an instance of the service is killed. At the end judge.py compares the witnesses. Faults
of nodes are asked for on standard output (`@ kill 2`), and the test says on standard input when it
is done. Exits 0 only if there is no anomaly.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

from confluent_kafka import Consumer, TopicPartition

import judge
from payments_service import FIRST_BALANCE

HERE = os.path.dirname(os.path.abspath(__file__))
LANES = 12
ACCOUNTS = [f"account-{number}" for number in range(40)]
# One command of this many is sent again under its key at the other gateway.
RETRIED = 5
ANSWERED_WITHIN = 120


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Gateway:
    def __init__(self, run, number):
        self.run, self.number, self.port = run, number, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.path = os.path.join(run.folder, f"gateway-{number}.toml")
        brokers = ", ".join(f'"{it}"' for it in run.settings["bootstrap"].split(","))
        text = f'listen = ["{self.address}"]\nshards = 2\n[admin]\nlisten = "127.0.0.1:0"\n'
        text += f'[kafka]\nbootstrap = [{brokers}]\n[log]\nlevel = "info"\n'
        topics = run.settings["topics"]
        for name in ("payments", "credits"):
            text += f'[[command]]\nname = "{name}"\nroute = "POST /accounts/{{id}}/{name}"\n'
            text += f'topic = "{topics["commands"]}"\nreplies = "{topics["replies"]}"\n'
            text += 'key = "{path.id}"\nidempotency = "required"\ntimeout = "10s"\n'
            text += f'forward = ["x-attempt"]\ndedupe = "{run.settings["dedupe"]}"\n'
        text += f'[[query]]\nroute = "GET /accounts/{{id}}"\ntopic = "{topics["balances"]}"\n'
        text += 'key = "{path.id}"\n'
        with open(self.path, "w") as file:
            file.write(text)
        self.start()

    def start(self):
        log = open(os.path.join(self.run.folder, f"gateway-{self.number}.log"), "ab")
        command = [self.run.settings["binary"], "run", "--config", self.path]
        # Variables for the test are not settings.
        env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
        self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env=env)

    def wait_ready(self):
        until = time.time() + 60
        while time.time() < until:
            assert self.process.poll() is None, f"gateway {self.number} has ended: see {self.run.folder}"
            status, _, _ = ask(self.address, "GET", f"/accounts/{ACCOUNTS[0]}", None, {}, 5)
            if status in (200, 404):
                return
            time.sleep(0.05)
        raise RuntimeError(f"gateway {self.number} does not become ready: see {self.run.folder}")


def ask(address, method, path, body, headers, patience):
    """Status, body and headers. Status 0: there was no answer."""
    connection = http.client.HTTPConnection(address, timeout=patience)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    except (OSError, http.client.HTTPException):
        return 0, "", {}
    finally:
        connection.close()


class Witness(threading.Thread):
    """Reads a topic as librdkafka does, and notes when it had read each record."""

    def __init__(self, run, topic):
        super().__init__(daemon=True)
        self.rows, self.topic, self.run_ = [], topic, run
        self.at, self.ends = {}, None
        self.start()

    def run(self):
        consumer = Consumer({
            "bootstrap.servers": self.run_.settings["bootstrap"],
            "group.id": "witness",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 2,
            "fetch.wait.max.ms": 20,
        })
        partitions = range(self.run_.settings["partitions"])
        consumer.assign([TopicPartition(self.topic, it, 0) for it in partitions])
        quiet = 0
        while not (self.run_.over and quiet > 20):
            messages = consumer.consume(500, 0.1)
            now = time.time()
            messages = [it for it in messages if not it.error()]
            quiet = 0 if messages else quiet + 1
            self.rows += [(now, it) for it in messages]
        consumer.close()


class Run:
    def __init__(self, settings):
        self.settings = settings
        self.folder = settings["folder"]
        self.over = self.quiet = False
        self.attempts, self.lock, self.number = [], threading.Lock(), 0
        self.faults = Counter()
        self.random = random.Random(settings["seed"])
        topics = settings["topics"]
        self.witnesses = {name: Witness(self, topics[name]) for name in topics}
        self.gateways = [Gateway(self, 0), Gateway(self, 1)]
        self.services, self.away = [None, None], set()
        self.start_service(0), self.start_service(1)
        for gateway in self.gateways:
            gateway.wait_ready()

    def start_service(self, number):
        settings = {
            "bootstrap": self.settings["bootstrap"],
            "topics": self.settings["topics"],
            "group": self.settings["topics"]["commands"],
            "name": f"service-{number}",
            "gateways": [gateway.address for gateway in self.gateways],
            "log": os.path.join(self.folder, f"credits-{number}.log"),
        }
        log = open(os.path.join(self.folder, f"service-{number}.err"), "ab")
        command = [sys.executable, os.path.join(HERE, "payments_service.py"), json.dumps(settings)]
        self.services[number] = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)

    def supervise(self):
        """Starts an instance of the service again that has ended by itself, as a supervisor would."""
        while not self.over:
            for number, service in enumerate(list(self.services)):
                if service and number not in self.away and service.poll() is not None and not self.over:
                    print(f"service {number} ended by itself ({service.returncode}) and is started again", flush=True)
                    self.faults["service_ended"] += 1
                    self.start_service(number)
            time.sleep(0.5)

    # Clients.

    def attempt(self, order, gateway, patience):
        with self.lock:
            self.number += 1
            name = f"c-{self.number}"
        headers = {
            "Idempotency-Key": f'"{order["key"]}"',
            "Content-Type": "application/json",
            "X-Attempt": name,
        }
        body = json.dumps({"to": order["to"], "amount": order["amount"]})
        path = f"/accounts/{order['from']}/payments"
        gateways = list(self.gateways)
        row = {**order, "attempt": name, "gateway": gateway % len(gateways), "sent": time.time()}
        address = gateways[gateway % len(gateways)].address
        row["status"], row["body"], answer = ask(address, "POST", path, body, headers, patience)
        row["replayed"] = answer.get("idempotent-replayed") == "true"
        row["ended"] = time.time()
        with self.lock:
            self.attempts.append(row)
        if row["status"] not in (0, 200, 409, 503, 504):
            print("an unexpected answer:", row, flush=True)
        return row["status"] in (200, 409)

    def pay(self, lane, number, chance):
        payer, payee = chance.sample(ACCOUNTS, 2)
        order = {"key": f"pay-{lane}-{number}", "from": payer, "to": payee, "amount": chance.randint(1, 20)}
        order.update(lane=lane, number=number)
        gateway = chance.randint(0, len(self.gateways) - 1)
        how = chance.choice(["after", "beside", "impatient"]) if chance.randrange(RETRIED) == 0 else ""
        beside = None
        if how == "beside":
            def other():
                time.sleep(chance.random() * 0.05)
                self.attempt(order, gateway + 1, 30)

            beside = threading.Thread(target=other)
            beside.start()
        patience = chance.uniform(0.005, 0.06) if how == "impatient" else 30
        done = self.attempt(order, gateway, patience)
        until = time.time() + ANSWERED_WITHIN
        while not done or how in ("after", "impatient"):
            gateway, how = gateway + 1, ""
            done = self.attempt(order, gateway, 30)
            if not done:
                time.sleep(0.1)
            if time.time() > until:
                break
        if beside:
            beside.join()

    def lane(self, lane):
        chance = random.Random(f"{self.settings['seed']} {lane}")
        number = 0
        while not self.quiet:
            self.pay(lane, number, chance)
            number += 1
            time.sleep(self.settings["pause"])

    # Faults.

    def order(self, text):
        print("@", text, flush=True)
        answer = sys.stdin.readline().split()
        assert answer and answer[0] == "done", answer
        return answer[1:]

    def kill_gateway(self):
        gateway = self.random.choice(self.gateways)
        gateway.process.kill()
        gateway.process.wait()
        time.sleep(0.3)
        gateway.start()
        gateway.wait_ready()

    def freeze_gateway(self):
        process = self.random.choice(self.gateways).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)

    def kill_leader(self):
        topic = self.random.choice(["commands", "replies"])
        (node,) = self.order(f"kill {self.settings['topics'][topic]} {self.random.randrange(self.settings['partitions'])}")
        time.sleep(5)
        self.order(f"start {node}")

    def freeze_leader(self):
        topic = self.random.choice(["commands", "replies"])
        (node,) = self.order(f"freeze {self.settings['topics'][topic]} {self.random.randrange(self.settings['partitions'])}")
        time.sleep(8)
        self.order(f"thaw {node}")

    def add_service(self):
        """A third instance of the service comes and goes in order: two rebalances."""
        number = len(self.services)
        self.away.add(number)
        self.services.append(None)
        self.start_service(number)
        time.sleep(5)
        process = self.services.pop()
        process.terminate()
        process.wait()
        time.sleep(2)

    def add_gateway(self):
        """A third gateway is scaled out and in."""
        gateway = Gateway(self, len(self.gateways))
        gateway.wait_ready()
        self.gateways.append(gateway)
        time.sleep(4)
        self.gateways.pop()
        time.sleep(0.2)
        gateway.process.terminate()
        gateway.process.wait()

    def kill_service(self):
        number = self.random.randrange(2)
        self.away.add(number)
        self.services[number].kill()
        self.services[number].wait()
        time.sleep(3)
        self.start_service(number)
        self.away.discard(number)

    def wait_progress(self):
        """Waits until both gateways answer again."""
        since = time.time()
        while True:
            with self.lock:
                done = Counter(it["gateway"] for it in self.attempts if it["sent"] > since and it["status"] in (200, 409))
            if min(done[0], done[1]) >= 5:
                return
            if time.time() - since > ANSWERED_WITHIN:
                self.tell_stuck(since)
                raise RuntimeError(f"stuck: no progress {ANSWERED_WITHIN} s after the last fault: {done}")
            time.sleep(0.1)

    def tell_stuck(self, since):
        """Prints what answers there were, who still runs, and the end of each log."""
        with self.lock:
            answers = [it for it in self.attempts if it["ended"] > since]
        print("faults so far:", dict(self.faults))
        print("answers since:", Counter((it["gateway"], it["status"]) for it in answers))
        for it in answers[-12:]:
            print(f"  {it['ended'] - since:.1f} s: gateway {it['gateway']}, {it['key']}: {it['status']} {it['body'][:300]}")
        for number, gateway in enumerate(self.gateways):
            print(f"gateway {number} runs:", gateway.process.poll() is None)
        for number, service in enumerate(self.services):
            print(f"service {number} runs:", service.poll() is None)
            if service.poll() is None:
                service.send_signal(signal.SIGUSR1)
        time.sleep(1)
        for name in sorted(os.listdir(self.folder)):
            if name.endswith((".log", ".err")) and not name.startswith("credits"):
                with open(os.path.join(self.folder, name), errors="replace") as file:
                    print(f"== {name}\n" + "".join(file.readlines()[-60:]))
        sys.stdout.flush()

    def run(self):
        lanes = [threading.Thread(target=self.lane, args=(number,)) for number in range(LANES)]
        for lane in lanes:
            lane.start()
        threading.Thread(target=self.supervise, daemon=True).start()
        try:
            self.wait_progress()
            faults = [name for name, times in self.settings["faults"].items() for _ in range(times)]
            self.random.shuffle(faults)
            for fault in faults:
                getattr(self, fault)()
                self.faults[fault] += 1
                self.wait_progress()
            while len({it["key"] for it in self.attempts}) < self.settings["commands"]:
                time.sleep(0.2)
        finally:
            self.quiet = True
            for lane in lanes:
                lane.join()
        self.wait_credited()
        balances = self.ask_balances()
        self.over = True
        for witness in self.witnesses.values():
            witness.join()
        self.judge(balances)

    def credits(self):
        rows = []
        for number in range(3):
            path = os.path.join(self.folder, f"credits-{number}.log")
            if os.path.exists(path):
                with open(path) as file:
                    lines = file.read().split("\n")
                # A killed instance may have written half a line.
                rows += [json.loads(line) for line in lines if line.endswith("}")]
        return rows

    def wait_credited(self):
        """Waits until every payment that succeeded was credited."""
        paid = {it["key"] for it in self.attempts if it["status"] == 200}
        until = time.time() + ANSWERED_WITHIN
        while time.time() < until:
            done = {it["key"] for it in self.credits() if it["status"] == 200}
            if len(done) >= len(paid):
                break
            time.sleep(0.2)
        time.sleep(1)

    def ask_balances(self):
        """The balances that each gateway shows."""
        both = []
        for gateway in self.gateways:
            shown = {}
            for account in ACCOUNTS:
                status, body, _ = ask(gateway.address, "GET", f"/accounts/{account}", None, {}, 10)
                shown[account] = json.loads(body)["balance"] if status == 200 else FIRST_BALANCE
            both.append(shown)
        return both

    def judge(self, shown):
        def headers(message):
            return {name: value.decode() for name, value in message.headers() or []}

        commands, replies, applied, balances = [], [], Counter(), {}
        order = lambda rows: sorted(rows, key=lambda row: (row[1].partition(), row[1].offset()))
        for seen, message in order(self.witnesses["commands"].rows):
            has = headers(message)
            commands.append({
                "id": has["correlation-id"],
                "key": has["idempotency-key"],
                "attempt": has["x-attempt"],
                "partition": message.partition(),
                "offset": message.offset(),
                "seen": seen,
            })
        for seen, message in order(self.witnesses["replies"].rows):
            has = headers(message)
            reply = {"id": has["correlation-id"], "status": int(has[":status"]), "body": message.value().decode()}
            replies.append({**reply, "seen": seen})
        for _, message in self.witnesses["journal"].rows:
            entry = json.loads(message.value())
            if entry.get("balances"):
                applied[entry["id"]] += 1
        for _, message in order(self.witnesses["balances"].rows):
            balances[message.key().decode()] = json.loads(message.value())["balance"]
        attempts = self.attempts + self.credits()
        # An attempt of a killed instance has no row: it may have been sent at any time.
        known = {it["attempt"] for it in attempts}
        for record in commands:
            if record["attempt"] not in known and record["attempt"].startswith("service-"):
                row = {"attempt": record["attempt"], "key": record["key"], "sent": 0, "ended": 0, "status": 0, "body": ""}
                attempts.append(row)
        anomalies, counts = judge.judge({
            "attempts": attempts,
            "commands": commands,
            "replies": replies,
            "applied": applied,
            "balances": balances,
            "accounts": ACCOUNTS,
            "first_balance": FIRST_BALANCE,
            "strict": self.settings["dedupe"] == "strict",
        })
        for number, account_balances in enumerate(shown):
            for account, balance in account_balances.items():
                if balance != balances.get(account, FIRST_BALANCE):
                    anomalies.append(("stale-read", f"gateway {number} shows {balance} of {account}"))
        ends = [row["ended"] - row["sent"] for row in self.attempts]
        print(f"dedupe = {self.settings['dedupe']}: faults {dict(self.faults)}")
        print("  " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        print(f"  accounts {len(ACCOUNTS)}, sum of money {sum(balances.get(it, FIRST_BALANCE) for it in ACCOUNTS)}")
        print(f"  slowest answer {max(ends):.1f} s; planted histories found {judge.check_the_judge()}/{len(judge.planted())}")
        kinds = Counter(it[0] for it in anomalies)
        print(f"  anomalies: {sum(kinds.values())} {dict(kinds)}")
        for anomaly in anomalies[:10]:
            print("   ", str(anomaly)[:600])
        sys.stdout.flush()
        sys.exit(1 if anomalies else 0)

    def end(self):
        self.over = True
        for process in self.services + [gateway.process for gateway in self.gateways]:
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


if __name__ == "__main__":
    run = Run(json.loads(sys.argv[1]))
    try:
        run.run()
    finally:
        run.end()
