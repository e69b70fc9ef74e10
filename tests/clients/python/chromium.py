"""Chromium's own EventSource: headless, driven by DevTools commands over a pipe.

    python3 chromium.py URL

prints one line of JSON for each event that the page's EventSource dispatches: {"id", "event", "data"}.
Only the standard library is used.
"""

import json
import os
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

PAGE = """
const source = new EventSource(%s);
for (const type of ["message", "base64", "delete", "gap", "position"]) {
  source.addEventListener(type, (event) =>
    show(JSON.stringify({id: event.lastEventId, event: event.type, data: event.data})));
}
"""


class Browser:
    """A pipe to Chromium: JSON messages, each ended by a NUL."""

    def __init__(self, folder):
        commands, self.to = os.pipe()
        self.of, answers = os.pipe()
        os.set_inheritable(commands, True)
        os.set_inheritable(answers, True)
        line = (
            "exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run"
            " --disable-dev-shm-usage --remote-debugging-pipe"
            f" --user-data-dir={folder} about:blank 3<&{commands} 4>&{answers}"
        )
        fds = (commands, answers)
        self.process = subprocess.Popen(["sh", "-c", line], pass_fds=fds, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.number, self.session, self.rest, self.shown = 0, None, b"", []

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.of, 1 << 20)
            if not more:
                sys.exit("chromium ended")
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.to, json.dumps(command).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer}")
                return answer["result"]
            self.on_event(answer)

    def on_event(self, message):
        if message.get("method") == "Runtime.bindingCalled":
            print(message["params"]["payload"], flush=True)


url = sys.argv[1]
parts = urlsplit(url)
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    browser = Browser(folder)
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
    browser.session = attached["sessionId"]
    browser.call("Page.enable")
    # A page of the stream's own origin: whatever the gateway answers there, be it a 404.
    browser.call("Page.navigate", url=f"{parts.scheme}://{parts.netloc}/no-page")
    while browser.message().get("method") != "Page.loadEventFired":
        pass
    browser.call("Runtime.enable")
    browser.call("Runtime.addBinding", name="show")
    browser.call("Runtime.evaluate", expression=PAGE % json.dumps(url))
    while True:
        browser.on_event(browser.message())
