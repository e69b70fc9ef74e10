"""A relay of TCP between clients (or their proxy) and a gateway, which can cut.

It has one address for the whole run, sends each new connection to `target`, and knows the client of
each request by the parameter `client=` in its target. It forwards bytes as they are and cuts where a
rule says so; a cut is an end of the connection on both sides.
"""

import asyncio
import collections
import re
import threading

REQUEST = re.compile(rb"^[A-Z]+ \S*[?&]client=([A-Za-z0-9.-]+)\S* HTTP/", re.MULTILINE)
READ_BYTES = 64 * 1024


class After:
    """Cuts the first connection of each client directly after a byte string, past a number of bytes."""

    def __init__(self, count, marker):
        self.count, self.marker = count, marker

    def start(self, heard):
        return heard.connections == 1

    def forwarded(self, heard, data):
        at = data.find(self.marker, max(self.count - heard.bytes, 0))
        return None if at < 0 else at + len(self.marker)


class Markers:
    """Cuts directly after each of these byte strings, one per connection, in their order."""

    def __init__(self, *markers):
        self.markers = markers

    def start(self, heard):
        return heard.cuts < len(self.markers)

    def forwarded(self, heard, data):
        marker = self.markers[heard.cuts]
        kept = heard.tail
        at = (kept + data).find(marker)
        heard.tail = (kept + data)[-(len(marker) - 1) :]
        return None if at < 0 else max(at + len(marker) - len(kept), 0)


class Heard:
    """What the relay has seen of one client."""

    def __init__(self):
        self.connections = 0
        self.cuts = 0
        # Of the current connection.
        self.bytes = 0
        self.tail = b""
        self.held = False


class Relay:
    """The relay, on a thread of its own. Attributes are set by the test between its steps."""

    def __init__(self):
        self.target = None
        self.rule = None
        # Whether a connection that the rule cuts is held open instead, until `cut_all`.
        self.hold = False
        self.clients = collections.defaultdict(Heard)
        self.writers = set()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.run, args=(started,), daemon=True).start()
        started.wait()

    def run(self, started):
        asyncio.set_event_loop(self.loop)
        self.open = asyncio.Event()
        self.open.set()
        server = asyncio.start_server(self.serve, "127.0.0.1", 0, limit=READ_BYTES)
        server = self.loop.run_until_complete(server)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    def call(self, function):
        """Runs a function on the relay's thread."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (function(), done.set()))
        done.wait()

    def reset(self, target, rule=None, hold=False):
        """Ends all connections and discards what was received."""
        self.call(lambda: (self.end_all(), self.clients.clear(), self.open.set()))
        self.target, self.rule, self.hold = target, rule, hold

    def cut_all(self, pause=False):
        """Cuts every connection. With `pause`, new ones are accepted and wait for `resume`."""
        if pause:
            self.call(self.open.clear)
        self.call(self.end_all)

    def resume(self):
        self.call(self.open.set)

    def end_all(self):
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        other = None
        try:
            await self.open.wait()
            gateway, other = await asyncio.open_connection(*self.target, limit=READ_BYTES)
            self.writers.add(other)
            asked = {}
            up = self.loop.create_task(self.requests(reader, other, asked))
            down = self.loop.create_task(self.responses(gateway, writer, asked))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            up.cancel(), down.cancel()
        except OSError:
            pass  # The gateway does not run: the client sees its connection end.
        finally:
            for it in (writer, other):
                if it is not None:
                    it.close()
                    self.writers.discard(it)

    async def requests(self, reader, writer, asked):
        while data := await read(reader):
            if match := REQUEST.search(data):
                asked["by"] = heard = self.clients[match[1].decode()]
                heard.connections += 1
                heard.bytes, heard.tail, heard.held = 0, b"", False
            await write(writer, data)

    async def responses(self, reader, writer, asked):
        while data := await read(reader):
            heard = asked.get("by")
            if heard is None:
                await write(writer, data)
                continue
            cut = None
            if self.rule and self.rule.start(heard):
                cut = self.rule.forwarded(heard, data)
            heard.bytes += len(data)
            await write(writer, data if cut is None else data[:cut])
            if cut is not None:
                heard.cuts += 1
                heard.held = self.hold
                if self.hold:
                    await asyncio.Event().wait()
                return


async def read(reader):
    try:
        return await reader.read(READ_BYTES)
    except OSError:
        return b""


async def write(writer, data):
    try:
        writer.write(data)
        await writer.drain()
    except OSError:
        pass  # The other direction ends, and with it both.
