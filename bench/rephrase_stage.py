"""The rephrase stage against a scripted loopback server; one JSON line per figure.

    python bench/rephrase_stage.py [throughput] [faults] [kills] [many] [--questions 2000] ...

throughput  the whole stage, judging and saving included, as a share of the ideal (requests / places rounds): each
            question takes two requests, a rewrite and a verdict on it
faults      5 % 429, 3 % 500, 2 % dropped connections, 1 % empty, 1 % hanging: calls a question; same output as without
kills       kill -9 at random moments, restart each time: same output as an uninterrupted run; repeated calls
many        100,000 questions: seconds from the command to its first request with nothing answered before (start-up)
            and with all but the last answered (resume), by the clock and of the processor; seconds and peak memory of
            that run to its end
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.run.files import read_jsonl, write_json
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config, Data, Rephrase
from curiosft_cli.stages.rephrase import answer_log
from curiosft_cli.stages.rephrase.answer_log import STRICTER
from curiosft_cli.stages.rephrase.judge.rules import Judgement
from curiosft_cli.stages.rephrase.judge.verify import PROMPT
from curiosft_cli.stages.rephrase.run import open_log, rephrase

SAME = '{"same": true, "differences": []}'
FAULTS = (("429", 0.05), ("500", 0.03), ("drop", 0.02), ("empty", 0.01), ("hang", 0.01))
BEFORE, AFTER = REPHRASE_PROMPT.split("{question}")


def serve(rows: int, latency_s: float, with_faults: bool, port: Connection) -> None:
    """Answer with the clean question, or that it is the same, after `latency_s`; tell the calls of each at /calls."""
    from aiohttp import web

    clean = {noisy(problem).question: problem.question for problem in generate("train", rows)}
    calls: Counter[str] = Counter()
    first_s: list[float] = []

    def fault_of(post: str) -> str:
        draw = random.Random(f"{calls[post]}|{post}").random()
        for kind, share in FAULTS:
            if draw < share:
                return kind
            draw -= share
        return ""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        message = body["messages"][0]["content"]
        post = message.removesuffix(STRICTER).removeprefix(BEFORE).removesuffix(AFTER)
        calls[post] += 1
        if not first_s:
            first_s.append(time.time())
        fault = fault_of(post) if with_faults else ""
        await asyncio.sleep(3600 if fault == "hang" else latency_s)
        if fault == "drop" and request.transport is not None:
            request.transport.close()
        if fault in ("429", "500"):
            return web.json_response({"error": {"message": fault}}, status=int(fault))
        text = "" if fault == "empty" else SAME if message.startswith(PROMPT) else clean.get(post, post)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 500, "completion_tokens": 50}
        return web.json_response({"choices": [choice], "usage": usage})

    async def told(_: web.Request) -> web.Response:
        return web.json_response({"calls": dict(calls), "first_s": first_s})

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/calls", told)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


class Server:
    """A context: the server in a process of its own."""

    def __init__(self, rows: int, latency_s: float, *, with_faults: bool = False) -> None:
        here, there = multiprocessing.Pipe()
        target = multiprocessing.get_context("spawn").Process
        self._process = target(target=serve, args=(rows, latency_s, with_faults, there), daemon=True)
        self._process.start()
        self.port = here.recv()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def calls(self) -> dict[str, int]:
        """Requests for each question."""
        return self._told()["calls"]

    def first_s(self) -> float:
        """When the first request came, by the wall clock; waits for it."""
        while not (came := self._told()["first_s"]):
            time.sleep(0.05)
        return came[0]

    def _told(self) -> dict[str, Any]:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/calls") as answer:
            return json.load(answer)


def config(server: Server | None, rows: int, in_flight: int, **settings: Any) -> Config:
    """Clean `rows` posts at this server."""
    url = f"http://127.0.0.1:{server.port if server else 9}/v1"
    section = Rephrase(base_url=url, model="bench", api_key_env="BENCH_KEY", concurrency=in_flight, **settings)
    return Config(data=Data(train=(f"arithmetic-forum:train:{rows}",)), rephrase=section)


def results(folder: Path) -> list[dict[str, Any]]:
    """The cleaned rows without the time at which each was made."""
    rows = list(read_jsonl(folder / "rephrase" / "questions.jsonl"))
    for row in rows:
        del row["rephrase"]["time"]
    return rows


def clean(folder: Path, settings: Config) -> dict[str, Any]:
    """Run the stage here."""
    return rephrase(settings, StageDir(folder / "rephrase"), lambda *_: None)


def throughput(folder: Path, rows: int, latency_s: float, in_flight: int) -> dict[str, Any]:
    """The stage with everything in it; reading the data before the first request is start-up."""
    with Server(rows, latency_s) as server:
        clean(folder / "warm", config(server, 8, 8))
        first: list[float] = []

        def progress(_: int, total: int, __: str) -> None:
            if total and not first:
                first.append(time.perf_counter() - latency_s)

        stage, cpu = StageDir(folder / "run" / "rephrase"), time.process_time()
        usage = rephrase(config(server, rows, in_flight), stage, progress)
        seconds, cpu = time.perf_counter() - first[0], time.process_time() - cpu
    ideal = math.ceil(usage["requests"] / in_flight) * latency_s
    share = round(ideal / seconds, 3)
    line = {
        "in_flight": in_flight,
        "questions": rows,
        "requests": usage["requests"],
        "seconds": round(seconds, 2),
        "share_of_ideal": share,
    }
    return line | {"cpu_ms_per_question": round(1e3 * cpu / rows, 2)} | usage["verdicts"]


def faults(folder: Path, rows: int, in_flight: int) -> dict[str, Any]:
    """The same output with faults and without."""
    with Server(rows, 0.02) as server:
        clean(folder / "good", config(server, rows, in_flight))
    with Server(rows, 0.02, with_faults=True) as server:
        started = time.perf_counter()
        usage = clean(folder / "bad", config(server, rows, in_flight, timeout_s=3))
        seconds, calls = time.perf_counter() - started, server.calls()
    good, bad = results(folder / "good"), results(folder / "bad")
    ids = [row["id"] for row in bad]
    # What an empty answer cost is part of the record, so tokens may differ.
    for row in good + bad:
        del row["rephrase"]["tokens"]
    return {
        "questions": rows,
        "lost": rows - len(ids),
        "duplicated": len(ids) - len(set(ids)),
        "calls_per_request": round(sum(calls.values()) / len(calls), 4),
        "same_output": good == bad,
        "faults": usage["faults"],
        "seconds": round(seconds, 1),
    }


def kills(folder: Path, rows: int, in_flight: int, times: int) -> dict[str, Any]:
    """Kill at random moments while answers come, then let it end."""
    draw = random.Random(0)
    with Server(rows, 0.3) as server:
        clean(folder / "whole", config(server, rows, in_flight))
        before = sum(server.calls().values())
        stage = StageDir(folder / "killed" / "rephrase")
        write_json(stage.config_file, config(server, rows, in_flight).model_dump(mode="json"))
        command = [sys.executable, "-m", "curiosft_cli.stages.rephrase.run", str(stage.path)]
        answers, done = stage.path / "answers.jsonl", 0
        for _ in range(times):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            size = answers.stat().st_size if answers.exists() else 0
            while process.poll() is None and (answers.stat().st_size if answers.exists() else 0) == size:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 0.7))
            done += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        saved = sum(1 for _ in read_jsonl(answers))
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        asked = {post: count - 1 for post, count in server.calls().items()}
    repeated = sum(asked.values()) - before
    return {
        "questions": rows,
        "kills_while_running": done,
        "saved_before_the_last_run": saved,
        "exit_code": code,
        "same_output": results(folder / "killed") == results(folder / "whole"),
        "repeated_calls": repeated,
        "most_repeated": done * in_flight,
        "uninterrupted_calls": before,
    }


def many(folder: Path, rows: int) -> dict[str, Any]:
    """From the command to the first request, and to the end."""
    source = folder / "many.jsonl"
    with source.open("w") as file:
        for number in range(rows + 1):
            filler = "Please look at it closely, since my friends disagree. " * 4
            question = f"Hi all! {filler}What is {number}+{number % 97}? Thanks in advance!"
            file.write(json.dumps({"question": question, "answer": str(number + number % 97), "id": number}) + "\n")
    figures: dict[str, Any] = {"questions": rows}
    for name, answered in (("start_up_s", 0), ("resume_s", rows)):
        with Server(1, 0.0) as server:
            settings = config(server, 1, 8, second_attempt=False, verify="off")
            settings = settings.model_copy(update={"data": Data(train=(str(source),))})
            stage = StageDir(folder / name / "rephrase")
            write_json(stage.config_file, settings.model_dump(mode="json"))
            save_answers(settings, stage, itertools.islice(read_jsonl(source), answered))
            started = time.time()
            process = subprocess.Popen([sys.executable, "-m", "curiosft_cli.stages.rephrase.run", str(stage.path)])
            figures[name] = round(server.first_s() - started, 2)
            figures[name.removesuffix("_s") + "_cpu_s"] = round(cpu_s(process.pid), 2)
            if not answered:
                process.kill()
            _, status, used = os.wait4(process.pid, 0)
    end = {"exit_code": os.waitstatus_to_exitcode(status), "whole_s": round(time.time() - started, 2)}
    return figures | end | {"peak_mib": round(used.ru_maxrss / 1024)}


def cpu_s(pid: int) -> float:
    """Processor seconds of a running process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def save_answers(settings: Config, stage: StageDir, rows: Iterable[dict[str, Any]]) -> None:
    """Saved answers as if these rows had been asked; judging them is no part of what is measured."""
    cost = {"prompt_tokens": 500, "completion_tokens": 9, "cost_usd": 0.0}
    judged = mock.patch.object(answer_log, "judge_by_rules", lambda *_: Judgement("accepted", "ok", "rule bench"))
    with judged, open_log(settings, stage) as log:
        for row in rows:
            answer = {
                "answer": f"What is {row['id']}+{row['id'] % 97}?",
                "truncated": False,
                "tries": 1,
                "seconds": 1.0,
            }
            request = log.next_request(row["question"])
            assert request is not None
            log.save(request, answer | cost)


def main() -> None:
    """Measure what is named; everything without a name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", default=["throughput", "faults", "kills", "many"])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--latency-s", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--fault-questions", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--many", type=int, default=100_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        for figure in options.figures:
            here = folder / figure
            here.mkdir()
            if figure == "throughput":
                for number in options.in_flight:
                    line = throughput(here / str(number), options.questions, options.latency_s, number)
                    print(json.dumps({"figure": figure, **line}), flush=True)
                continue
            if figure == "faults":
                line = faults(here, options.fault_questions, 64)
            elif figure == "kills":
                line = kills(here, options.questions, 32, options.kills)
            else:
                line = many(here, options.many)
            print(json.dumps({"figure": figure, **line}), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
