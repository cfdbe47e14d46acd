"""A page in Debian's Chromium without a window, driven through its debugging port: keys, clicks, downloads, messages."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")


class Page:
    """An open page.

    Attributes:
        messages: what the browser and the page wrote to the console, and every request to another place than the disk.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.messages: list[str] = []

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (reply := await self._socket.receive_json(timeout=30)).get("id") != number:
            self._hear(reply)
        assert "error" not in reply, reply
        return reply["result"]

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives there."""
        result = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str, limit_s: float = 60.0) -> None:
        """Wait for an expression of JavaScript to be true."""
        deadline = time.monotonic() + limit_s
        while not await self.value(expression):
            assert time.monotonic() < deadline, expression
            await asyncio.sleep(0.05)

    async def reload(self) -> None:
        """Load the page again."""
        await self.value("window.old = true")
        await self.command("Page.reload")
        await self.until("!window.old && document.readyState === 'complete'")

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            written = {"text": key} if len(key) == 1 else {}
            await self.command("Input.dispatchKeyEvent", type="keyDown", key=key, **written)
            await self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def size(self, width: int, height: int) -> None:
        """The size of the window; a narrow one is a phone's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.command("Emulation.setDeviceMetricsOverride", **metrics)

    async def picture(self, file: Path) -> None:
        """A PNG of what is in sight."""
        shot = await self.command("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))

    def _hear(self, event: dict[str, Any]) -> None:
        method, said = event.get("method"), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"):
            self.messages.append(json.dumps(said)[:600])
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(("file:", "data:")):
            self.messages.append(f"a request to {said['request']['url'][:200]}")


@asynccontextmanager
async def opened(file: Path, folder: Path) -> AsyncGenerator[Page]:
    """Open a file in a browser whose profile and downloads are in `folder`."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        port = folder / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.exists() and port.read_text().count("\n")):
            assert time.monotonic() < deadline, "the browser does not start"
            await asyncio.sleep(0.1)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        async with aiohttp.ClientSession() as session:
            pages: list[dict[str, Any]] = []
            while not (pages := [page for page in pages if page["type"] == "page"]):
                async with session.get(address) as response:
                    pages = await response.json()
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.command(
                    "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads")
                )
                for domain in ("Runtime", "Log", "Network"):
                    await page.command(f"{domain}.enable")
                await page.command("Page.navigate", url=file.resolve().as_uri())
                await page.until("document.title && document.readyState === 'complete'")
                yield page
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
