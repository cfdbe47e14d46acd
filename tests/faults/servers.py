"""An endpoint that hangs, answers garbage or closes in the middle: now and then, and for ever.

Now and then costs further requests, and nothing else. For ever ends with one line and exit code 3, without results.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from scripted import Reply, ScriptedServer
from started import Started

from faults.report import Row
from faults.stages import Models, cleaner, work_of

FAULTS: dict[str, Reply] = {
    "hangs": Reply(delay_s=60),
    "closes the connection": Reply(drop=True),
    "closes in the middle of an answer": Reply(cut=True),
    "answers HTML": Reply(raw=("text/html", "<html>502 Bad Gateway</html>")),
    "answers half of a JSON": Reply(raw=("application/json", '{"choices": [{"message": ')),
    "answers another JSON": Reply(raw=("application/json", '{"ok": true}')),
    "answers a list": Reply(raw=("application/json", "[1, 2]")),
    "answers deep JSON": Reply(raw=("application/json", "[" * 100_000)),
    "answers nothing": Reply(""),
    "answers 500": Reply("oops", 500),
    "is overloaded": Reply("later", 429),
}
EVERY, LIMIT_S = 5, 400.0
SETTINGS = ("rephrase.timeout_s=1", "data.rows=20")


def servers(folder: Path, models: Models, jobs: int) -> list[Row]:
    """Clean a few questions with each kind of server."""
    folder.mkdir(parents=True)
    work = [(folder, models, name, every) for name in FAULTS for every in (EVERY, 1)]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        (sound, _), *ended = pool.starmap(_ask, [(folder, models, "", 0), *work], chunksize=1)
    now_and_then = Row(f"every {EVERY}th answer of an endpoint fails ({len(FAULTS)} ways)")
    for_ever = Row(f"every answer of an endpoint fails ({len(FAULTS)} ways)")
    for (_, _, name, every), (result, trouble) in zip(work, ended, strict=True):
        if every == 1:
            for_ever.count(trouble and f"an endpoint that always {name}: {trouble}")
        else:
            now_and_then.count(None if result == sound else f"an endpoint that sometimes {name}: {trouble or result}")
    return [now_and_then, for_ever]


def _ask(folder: Path, models: Models, name: str, every: int) -> tuple[Any, str | None]:
    """The cleaned questions, and what is wrong if it should end without one."""

    def script(number: int, message: str) -> Reply:
        return FAULTS[name] if every and number % every == 0 else cleaner(number, message)

    with ScriptedServer(script) as server:
        work = work_of("rephrase", models, folder, f"{name or 'sound'}-{every}".replace(" ", "-"), server)
        attempts = f"rephrase.max_attempts={2 if every == 1 else 10}"
        done = Started("rephrase", *work.arguments, *SETTINGS, attempts).wait_done(LIMIT_S)
    if done.returncode == 0:
        rows = [(row["id"], row["question"], row["rephrase"]["verdict"]) for row in work.result()[0]]
        return rows, f"it ended with 0: {done.stderr[-500:]}"
    lines = [line for line in done.stderr.splitlines() if line.startswith("curiosft: ")]
    results = list(work.folder.glob("*questions*"))
    if done.returncode == 3 and len(lines) == 1 and "Traceback" not in done.stderr and not results:
        return None, None
    return None, f"exit code {done.returncode}, {results}: {done.stderr[-1000:]}"
