"""Chromium without a window, through the DevTools protocol: forms, colour schemes, widths, pictures."""

import base64
import contextlib
import itertools
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

ANSWERS_WITHIN_SECONDS = 60


class Browser:
    """A page of a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.violations = list[str]()
        """Messages of the console, where a browser reports what a page may not load."""
        for domain in ("Page", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Answer to a command of the protocol."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Set size and colour scheme of the window."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        self.run("window.isFormerPage = true")
        self.ask("Page.navigate", url=address)
        self._await_load()

    def submit(self, fields: dict[str, str], form: str = "form") -> None:
        """Fill in a form and send it with its first button."""
        for name, value in fields.items():
            self.run(f"document.querySelector('{form} [name={name}]').value = {json.dumps(value)}")
        self.run("window.isFormerPage = true")
        self.run(f"document.querySelector('{form} button').click()")
        self._await_load()

    def run(self, script: str) -> Any:
        """Value of a script, run from outside the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, file: Path, whole: bool = True) -> None:
        """PNG of the page; of its visible part alone unless whole."""
        # the frame of the former page stays until the first of the new page is painted
        painted = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.ask("Runtime.evaluate", expression=painted, awaitPromise=True)
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))

    def _await_load(self) -> None:
        deadline = time.monotonic() + ANSWERS_WITHIN_SECONDS
        while not self.run("!window.isFormerPage && document.readyState === 'complete'"):
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.02)

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=ANSWERS_WITHIN_SECONDS))
        if message.get("method") == "Log.entryAdded":
            self.violations.append(message["params"]["entry"]["text"])
        return message


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, with a profile that is removed at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--no-proxy-server",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_address(Path(profile)), proxy=None, max_size=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait()


def _address(profile: Path) -> str:
    """Address of the first page, from the port that the browser chose."""
    import httpx

    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + ANSWERS_WITHIN_SECONDS
    while not (port_file.exists() and re.match(r"\d+\n", port_file.read_text())):
        assert time.monotonic() < deadline, "chromium did not start"
        time.sleep(0.05)
    port = port_file.read_text().split()[0]
    targets = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
    return str(next(each["webSocketDebuggerUrl"] for each in targets if each["type"] == "page"))
