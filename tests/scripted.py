"""A loopback chat endpoint that does what a script says: answers, refuses, stalls, drops the connection."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Reply:
    """One response.

    Attributes:
        text: what the model says, or the error's message when `status` is not 200.
        status: HTTP status.
        finish: finish_reason.
        headers: beside the usual ones.
        delay_s: wait before it, in seconds.
        drop: close the connection instead.
        cut: close it in the middle of the body.
        raw: (content type, body) in place of a chat completion.
        code: the error's code.
    """

    text: str = "ok"
    status: int = 200
    finish: str | None = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False
    cut: bool = False
    raw: tuple[str, str] | None = None
    code: str | None = None


Script = Callable[[int, str], Reply]


class ScriptedServer:
    """Use it as a context; `script(number of the request from 0, last message)` decides on every reply.

    A plain completion's prompt, printed, stands for the message.

    Attributes:
        bodies: the requests' JSON, in order of arrival.
        headers: the requests' headers.
        arrivals_s: when they came, by the loop's clock.
        open: requests that are open now.
        peak: most requests that were open at once.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = self.open = self.peak = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.arrivals_s: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def messages(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.arrivals_s.append(self._loop.time())
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            said = body["messages"][-1]["content"] if "messages" in body else str(body["prompt"])
            return await self._reply(request, self._script(number, said))
        finally:
            self.open -= 1

    async def _reply(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        await asyncio.sleep(reply.delay_s)
        if reply.drop and request.transport is not None:
            request.transport.close()
        if reply.cut and request.transport is not None:
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"id": "1", "choices": [{"index": 0, "message": {"content": "What')
            request.transport.close()
            return response
        if reply.raw:
            return web.Response(text=reply.raw[1], content_type=reply.raw[0])
        if reply.status != 200:
            error = {"error": {"message": reply.text, "code": reply.code}}
            return web.json_response(error, status=reply.status, headers=reply.headers)
        choice = {"index": 0, "finish_reason": reply.finish, "message": {"role": "assistant", "content": reply.text}}
        choice["text"] = reply.text
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        payload = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return web.Response(text=json.dumps(payload | {"usage": usage}), content_type="application/json")
