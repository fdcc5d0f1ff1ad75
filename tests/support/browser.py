"""A headless Chromium for tests: a small WebDriver client over HTTP, so that no browser library is needed."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_APT = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]  # somebody else may be installing
_INSTALL = [*_APT, "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]


def find_or_install() -> str | None:
    """None when both programs are there or could be installed (Debian, as root); else why not."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return None
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return "chromium and chromedriver are not installed, and this user cannot install Debian packages"
    for command in (["apt-get", "update"], _INSTALL):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return f"`{' '.join(_INSTALL)}` failed: {done.stderr.strip()[-200:]}"
    return None


class Browser:
    """One session. Use as a context manager."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="indelible-browser-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        self._base = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--window-size=1200,900", f"--user-data-dir={self._profile}"]  # fmt: skip
        capabilities = {"goog:chromeOptions": {"args": arguments},
                        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
        self._wait_for_driver()
        created = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{created['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=10)
            shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        """Loads a page and forgets the logs of the one before."""
        self.logs("browser")
        self.logs("performance")
        self._call("POST", f"{self._session}/url", {"url": url})

    def script(self, source: str, *arguments: Any) -> Any:
        """Runs JavaScript; ``return`` gives the value back."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": source, "args": list(arguments)})

    def wait_for(self, source: str, seconds: float = 30.0) -> Any:
        """Runs JavaScript until its value is true; raises TimeoutError after ``seconds``."""
        end = time.monotonic() + seconds
        while not (value := self.script(source)):
            if time.monotonic() > end:
                raise TimeoutError(f"still false after {seconds} s: {source}")
            time.sleep(0.05)
        return value

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Sends one DevTools command."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Takes the log entries of ``browser`` or ``performance`` since the last call."""
        return self._call("POST", f"{self._session}/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """Addresses that the page asked for since it was opened, itself excluded."""
        messages = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        urls = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:", "blob:"))]

    def mouse(self, *steps: tuple[str, float, float]) -> None:
        """Moves, presses and releases the mouse: ``("move" | "down" | "up", x, y)`` in window pixels."""
        actions: list[dict[str, Any]] = []
        for kind, x, y in steps:
            actions.append({"type": "pointerMove", "duration": 60, "x": round(x), "y": round(y)})
            if kind != "move":
                actions.append({"type": "pointerDown" if kind == "down" else "pointerUp", "button": 0})
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._call("POST", f"{self._session}/actions", {"actions": [pointer]})

    def screenshot(self, path: Path, *, is_full_page: bool = True) -> None:
        """Writes a PNG."""
        size = self.script("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        extra = {"clip": clip, "captureBeyondViewport": True} if is_full_page else {}
        path.write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", format="png", **extra)["data"]))

    def _wait_for_driver(self) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                self._call("GET", "/status")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None
