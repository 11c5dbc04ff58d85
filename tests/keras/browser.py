"""Headless Chromium for tests: open a page, wait until it shows something, look at it.

The DevTools protocol runs over two pipes (--remote-debugging-pipe): JSON messages that end with a
zero byte, read by the browser from descriptor 3 and written to descriptor 4.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Moves the pipes to descriptors 3 and 4 (above 99 first: one may be where the other belongs).
_LAUNCH = """
import os, sys
for fd, high in ((int(sys.argv[1]), 103), (int(sys.argv[2]), 104)):
    os.dup2(fd, high)
for high in (103, 104):
    os.dup2(high, high - 100)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A running Chromium with one page. folder: for its profile. Use as a context manager."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1400, 1000)) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        launch = [sys.executable, "-c", _LAUNCH, str(commands), str(answers)]
        self._process = subprocess.Popen(
            [*launch, str(CHROMIUM), *options],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        found = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        self._ask("Browser.close")
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _message(self) -> Any:
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has gone"
            self._rest += more
        text, self._rest = self._rest.split(b"\0", 1)
        return json.loads(text)

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=url)

    def text(self) -> str:
        """The text that the page shows."""
        found = self._ask("Runtime.evaluate", expression="document.body.innerText")
        return str(found["result"].get("value", ""))

    def view(self) -> Any:
        """How the page looks: int64[height, width, 3]."""
        from PIL import Image

        data = self._ask("Page.captureScreenshot", format="png")["data"]
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        return np.asarray(image.convert("RGB")).astype(np.int64)

    def wait(self, shown: Callable[[Any], bool], seconds: float = 60.0) -> None:
        """Look until the view is as wanted. Raises TimeoutError, with the page's text."""
        until = time.monotonic() + seconds
        while not self._is_shown(shown):
            if time.monotonic() > until:
                raise TimeoutError(
                    f"the page does not show what it should; its text: {self.text()}"
                )
            time.sleep(0.3)

    def _is_shown(self, shown: Callable[[Any], bool]) -> bool:
        try:
            return shown(self.view())
        except RuntimeError:  # between two pages
            return False
