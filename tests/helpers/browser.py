"""Pages as a browser shows them: headless Chromium, if it is installed.

`dom` gives a page after its scripts; `Browser` uses a page: it presses keys, drags and looks.
"""

import base64
import shutil
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any

import pytest
import requests

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
needs_driver = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="Chromium or chromedriver is not installed"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for a reference to an element


def dom(url: str, milliseconds: int = 20_000) -> str:
    """The page's HTML after its scripts ran for this many (virtual) milliseconds."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        command += [f"--virtual-time-budget={milliseconds}", "--dump-dom", url]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout


class Browser:
    """Chromium driven by chromedriver (W3C WebDriver over HTTP), without any network.

    Each request of a page to another machine fails, and `log()` shows it.
    """

    def __init__(self) -> None:
        assert CHROMIUM is not None
        assert DRIVER is not None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.http = requests.Session()
        self.http.trust_env = False
        self.base = f"http://127.0.0.1:{port}"
        arguments = [
            *FLAGS,
            f"--user-data-dir={self.profile.name}",
            "--force-device-scale-factor=1",
        ]
        arguments.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        capabilities = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        try:
            self._wait()
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self.base += f"/session/{session['sessionId']}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if "/session/" in self.base:
            self.http.delete(self.base, timeout=30)
        self.driver.terminate()
        self.driver.wait(30)
        self.profile.cleanup()

    def open(self, url: str, width: int = 1400, height: int = 1000, dark: bool = False) -> None:
        """Load a page in a window of this size, px."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The return value of a JavaScript function's body; a promise is awaited."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, seconds: float = 10.0) -> Any:
        """The first true value that the script returns."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"in {seconds} s never true: {script}"
            time.sleep(0.05)
        return value

    def find(self, css: str) -> str:
        return self._ask("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def click(self, css: str) -> None:
        self._ask("POST", f"/element/{self.find(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Focus an element and type; keys have WebDriver's codes, such as Enter \\ue007."""
        self._ask("POST", f"/element/{self.find(css)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press and release keys in the element that has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask(
            "POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        )

    def log(self, kind: str = "browser") -> list[dict[str, Any]]:
        """Messages since the last call: of the console, or (`performance`) of DevTools."""
        return self._ask("POST", "/se/log", {"type": kind})

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        """Send a command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "chromedriver does not answer"
            time.sleep(0.05)

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        answer = self.http.request(method, self.base + path, json=content, timeout=60)
        value = answer.json()["value"]
        assert answer.ok, f"{path}: {value}"
        return value
