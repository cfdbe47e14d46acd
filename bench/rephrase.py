"""Throughput of the chat client against a scripted loopback server with a fixed latency; one JSON line per setting.

    python bench/rephrase.py [--questions 2000] [--latency-s 1.0] [--in-flight 64 256]

The server runs in a process of its own. Ideal: every place is always taken, so
questions / places rounds of one latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.prompts import rephrase_message
from curiosft_cli.engine.endpoint.chat import ChatClient
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.concurrency import in_parallel


def serve(latency_s: float, port: Connection) -> None:
    """Answer every chat request with the same text after `latency_s` seconds."""
    from aiohttp import web

    body = json.dumps(
        {
            "id": "bench",
            "object": "chat.completion",
            "created": 0,
            "model": "bench",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "How many? " * 20}}
            ],
            "usage": {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760},
        }
    ).encode()

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency_s)
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


async def measure(port: int, questions: list[str], in_flight: int) -> float:
    """Seconds for all questions, the building of the client included."""
    started = time.perf_counter()
    async with ChatClient(Endpoint(f"http://127.0.0.1:{port}/v1", "bench", "BENCH_KEY", in_flight)) as client:

        async def ask(question: str) -> None:
            await client.ask(rephrase_message(question))

        await in_parallel(ask, questions, in_flight)
    assert client.answered == len(questions) and not client.faults
    return time.perf_counter() - started


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--latency-s", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    questions = [noisy(problem).question for problem in generate("train", options.questions)]
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(options.latency_s, there), daemon=True)
    server.start()
    port = here.recv()
    asyncio.run(measure(port, questions[:8], 8))  # the first use imports aiohttp
    try:
        for in_flight in options.in_flight:
            cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            seconds = asyncio.run(measure(port, questions, in_flight))
            ideal = math.ceil(len(questions) / in_flight) * options.latency_s
            print(
                json.dumps(
                    {
                        "in_flight": in_flight,
                        "questions": len(questions),
                        "seconds": round(seconds, 3),
                        "ideal_s": ideal,
                        "share_of_ideal": round(ideal / seconds, 3),
                        "requests_per_s": round(len(questions) / seconds, 1),
                        "client_cpu_ms_per_request": round(
                            1e3 * (resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu) / len(questions), 2
                        ),
                    }
                )
            )
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
