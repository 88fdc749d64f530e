"""Drives a headless Chromium: the DevTools protocol over a pipe, one message after the other."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    # A request to anywhere else fails instead of leaving the machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Chromium reads commands from descriptor 3 and writes answers to 4.
_TRAMPOLINE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
_HIGH = 20
_TIMEOUT = 300


def find():
    """The browser's program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab.

    Attributes:
        requests: The addresses of all its requests.
        problems: What it reported: uncaught exceptions, console errors and failed requests.
    """

    def __init__(self, process, commands, answers):
        self._process, self._commands, self._answers = process, commands, answers
        self._pending = b""
        self._count = 0
        self._session = None
        self.requests, self.problems, self._events = [], [], set()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Sends a command and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, deadline, what):
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, f"Chromium does not answer {what}"
            read = os.read(self._answers, 1 << 20)
            assert read, f"Chromium ended during {what}"
            self._pending += read
        line, self._pending = self._pending.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method"), message.get("params"))
        return message

    def _note(self, method, parameters):
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", details).get("description", str(details)))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url')}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.problems.append(str([a.get("value") for a in parameters["args"]]))
        elif method:
            self._events.add(method)

    def open(self, url):
        """Goes to an address and waits until it is loaded."""
        self._events.discard("Page.loadEventFired")
        self.send("Page.navigate", url=url)
        deadline = time.monotonic() + _TIMEOUT
        while "Page.loadEventFired" not in self._events:
            self._receive(deadline, f"the navigation to {url}")

    def run(self, expression):
        """The value of a JavaScript expression; of a promise, what it becomes."""
        done = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition, seconds=120):
        """Waits until a JavaScript expression is true, and returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < deadline, (f"{condition} stays {value!r}", self.problems)
            time.sleep(0.05)
        return value

    def size(self, width, height, dark=False, scale=1):
        """Sets the window's size in CSS pixels, and light or dark colours."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def box(self, selector):
        """Left, top, width and height of an element in the window, scrolled into view."""
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest', behavior: 'instant'});"
            " const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return tuple(found)

    def click(self, selector):
        """Clicks the middle of an element."""
        left, top, width, height = self.box(selector)
        self.stroke([(left + width / 2, top + height / 2)])

    def stroke(self, points):
        """Presses the mouse at the first point, moves through the others, and lets go."""

        def mouse(kind, point, buttons):
            x, y = point
            self.send(
                "Input.dispatchMouseEvent",
                **{"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons},
                clickCount=1,
            )

        mouse("mousePressed", points[0], 1)
        for point in points[1:]:
            mouse("mouseMoved", point, 1)
        mouse("mouseReleased", points[-1], 0)

    def key(self, key, text=""):
        """Presses a key and lets it go."""
        codes = {"Enter": 13, "Tab": 9, " ": 32}
        event = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self, path):
        """Writes a PNG file of the window."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser(profile):
    """Starts Chromium with an empty profile's folder; yields a page of it."""
    program = find()
    assert program, f"no browser was found ({', '.join(NAMES)}): apt-get install chromium"
    read, commands, answers, write = map(_moved, [*os.pipe(), *os.pipe()])
    command = [program, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAMPOLINE, str(read), str(write), *command],
        pass_fds=(read, write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    try:
        page = Page(process, commands, answers)
        yield page
    finally:
        # It ends when the pipe does, and takes its helpers along.
        os.close(commands)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers)


def _moved(descriptor):
    """The same descriptor out of the way of 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.close(descriptor)
    return moved
