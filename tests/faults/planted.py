"""Planted secrets: an endpoint that echoes its key in every way, and keys where none belongs. No output has one."""

from __future__ import annotations

import base64
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import zstandard
from scripted import Reply, ScriptedServer
from started import Started

from faults.report import Row
from faults.stages import Models, cleaner, work_of

KEY = "sk-Qz7vWLr2x_W9kT4mB8nHc5Dy"
VARIABLE = "PLANTED_API_KEY"
ECHOES: dict[str, Callable[[str], Reply]] = {
    "in an answer": lambda key: Reply(f"What is 3+4? {key}"),
    "reversed": lambda key: Reply(key[::-1]),
    "in part": lambda key: Reply(f"What is {key[:12]}?"),
    "in base64": lambda key: Reply(base64.b64encode(key.encode()).decode()),
    "in hexadecimal": lambda key: Reply(key.encode().hex()),
    "in a refusal": lambda key: Reply(f"the key {key} is over its limit", 400),
    "in an error": lambda key: Reply(f"{key} is wrong", 401),
    "in HTML": lambda key: Reply(raw=("text/html", f"<b>{key}</b>")),
    "as a name in JSON": lambda key: Reply(raw=("application/json", f'{{"{key}": 1}}')),
    "in a code": lambda key: Reply("no", 400, code=key),
    "in a reason to end": lambda key: Reply("x", finish=key),
}
MISPLACED: dict[str, tuple[str, ...]] = {
    "in an address, as a password": (f"rephrase.base_url=http://me:{KEY}@127.0.0.1:9/v1",),
    "in an address, as a query": (f"rephrase.base_url=http://127.0.0.1:9/v1?api_key={KEY}",),
    "in an address, as a path": (f"rephrase.base_url=http://127.0.0.1:9/{KEY}",),
    "in place of the variable's name": (f"rephrase.api_key_env={KEY}",),
    "as the name of the model": (f"rephrase.model={KEY}",),
    "in the name of the run": (f"run.name=run-{KEY}",),
    "in an address of eval": (f"eval.base_url=http://{KEY}@127.0.0.1:9/v1",),
    "in a system prompt": (f"model.system_prompt=Use {KEY}",),
}
LIMIT_S = 300.0


def planted(folder: Path, models: Models, jobs: int) -> list[Row]:
    """Run `rephrase` with each echo and each misplaced key; look for the key in all that it printed and wrote."""
    folder.mkdir(parents=True)
    echoed, misplaced = Row("an endpoint echoes its key"), Row("a key is where none belongs")
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for trouble in pool.starmap(_echo, [(folder, models, name) for name in ECHOES], chunksize=1):
            echoed.count(trouble)
        for trouble in pool.starmap(_misplace, [(folder, models, name) for name in MISPLACED], chunksize=1):
            misplaced.count(trouble)
    return [echoed, misplaced]


def _echo(folder: Path, models: Models, name: str) -> str | None:
    """Every third answer echoes the key."""

    def script(number: int, message: str) -> Reply:
        return ECHOES[name](KEY) if number % 3 == 0 else cleaner(number, message)

    with ScriptedServer(script) as server:
        work = work_of("rephrase", models, folder, f"echo-{name}".replace(" ", "-"), server)
        settings = ("data.rows=20", f"rephrase.api_key_env={VARIABLE}", "rephrase.max_attempts=2")
        done = Started("rephrase", *work.arguments, *settings, **{VARIABLE: KEY}).wait_done(LIMIT_S)
        assert server.headers and all(KEY in headers["Authorization"] for headers in server.headers), "no key was sent"
    return found(f"an endpoint that echoes its key {name}", done.stdout + done.stderr, work.folder.parent)


def _misplace(folder: Path, models: Models, name: str) -> str | None:
    """The same key is in the environment too, as a user has it."""
    root = folder / f"misplaced-{name}".replace(" ", "-")
    settings = ("rephrase.data=arithmetic:train:3", f"run.root={root}", f"rephrase.api_key_env={VARIABLE}")
    named = {word.partition("=")[0]: word for word in (*settings, *MISPLACED[name])}
    done = Started("rephrase", "curio", *named.values(), **{VARIABLE: KEY}).wait_done(LIMIT_S)
    if done.returncode not in (2, 3):
        return f"a key {name}: exit code {done.returncode}: {done.stderr[-500:]}"
    return found(f"a key {name}", done.stdout + done.stderr, root)


def found(what: str, printed: str, root: Path, window: int = 8) -> str | None:
    """Where a part of the key is: it counts as it is, reversed, in base64 and in hexadecimal."""
    forms = [KEY, base64.b64encode(KEY.encode()).decode().rstrip("="), KEY.encode().hex()]
    parts = {f[at : at + window] for form in forms for f in (form, form[::-1]) for at in range(len(form) - window + 1)}
    pattern = re.compile("|".join(map(re.escape, sorted(parts))), re.IGNORECASE)
    texts = {"the terminal": printed}
    for file in root.rglob("*"):
        texts[f"the name {file}"] = file.name
        if file.is_file():
            data = file.read_bytes()
            data = zstandard.decompress(data) if file.suffix == ".zst" else data
            texts[str(file)] = data.decode("utf-8", errors="replace")
    places = [f"{place} ({match[0]})" for place, text in texts.items() if (match := pattern.search(text))]
    return f"{what} is in {', '.join(places)}" if places else None
