"""The parts of Kafka that the matrix needs: the development broker, topics, and records by kcat."""

import json
import socket
import struct
import subprocess


class Broker:
    """The development broker, in its own process."""

    def __init__(self, binary, log):
        free = "127.0.0.1:0"
        command = [binary, "demo", "--no-gateway", "-o", "json", "--kafka-listen", free]
        command += ["--page-listen", free, "--listen", free, "--admin-listen", free]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.bootstrap = json.loads(self.process.stdout.readline())["kafka"]

    def create(self, topic, partitions, configs):
        """Creates a topic (CreateTopics version 2: kcat has no command for that)."""

        def text(value):
            return struct.pack(">h", len(value)) + value.encode()

        pairs = b"".join(text(key) + text(value) for key, value in configs.items())
        one = text(topic) + struct.pack(">ihi", partitions, 1, 0)
        one += struct.pack(">i", len(configs)) + pairs
        header = struct.pack(">hhi", 19, 2, 1) + text("matrix")
        request = header + struct.pack(">i", 1) + one + struct.pack(">i?", 10_000, False)
        host, port = self.bootstrap.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as broker:
            broker.sendall(struct.pack(">i", len(request)) + request)
            stream = broker.makefile("rb")
            (length,) = struct.unpack(">i", stream.read(4))
            answer = stream.read(length)
        # Correlation id, throttle time, one topic, its name, then the error.
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(topic))
        if error:
            raise RuntimeError(f"CreateTopics {topic}: Kafka's error {error}")

    def write(self, topic, records):
        """Appends records, pairs of key and value; an empty value is a tombstone."""
        lines = "\x01".join(f"{key}\t{value}" for key, value in records)
        command = ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-X", "linger.ms=0"]
        command += ["-K", "\t", "-D", "\x01", "-Z"]
        subprocess.run(command, input=lines.encode(), check=True, stderr=subprocess.DEVNULL)

    def read(self, topic):
        """All records, as kcat reads them: partition, key and value in the order of the offsets."""
        command = ["kcat", "-C", "-b", self.bootstrap, "-t", topic, "-o", "beginning", "-e", "-q"]
        done = subprocess.run([*command, "-J"], check=True, capture_output=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        records.sort(key=lambda record: (record["partition"], record["offset"]))
        return [(record["partition"], record["key"], record["payload"]) for record in records]
