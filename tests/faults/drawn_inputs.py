"""Malformed inputs drawn from valid files by hypothesis: another value, a missing key, a cut, other bytes.

Some of what is drawn is legal after all: a configuration without an optional key, for example. Such a case ends with
exit code 0 and is counted apart.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from faults.inputs import Input, holds

# File -> kinds of commands that read it.
JSON_FILES = {
    "model/config.json": ("model folder, in sft", "model folder, in eval"),
    "model/tokenizer.json": ("model folder, in sft", "model folder, in eval"),
    "model/tokenizer_config.json": ("model folder, in eval",),
    "model/generation_config.json": ("model folder, in eval",),
    "runs/run/sft/config.json": ("run folder",),
    "runs/run/sft/checkpoint-3/COMPLETE": ("run folder",),
    "b/aime24/summary.json": ("result folder",),
}
LINES = {
    "data.jsonl": "data file",
    "b/aime24/questions.jsonl": "result folder",
    "responses.jsonl": "saved responses",
    "samples.jsonl": "saved samples",
    "bench.jsonl": "benchmark file",
    "grades.jsonl": "pass rates",
    "pairs.jsonl": "rewrites",
}
BYTES = {
    **{file: kinds[0] for file, kinds in JSON_FILES.items()},
    **LINES,
    "model/model.safetensors": "model folder, in eval",
}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def drawn_inputs(valid: Path, number: int, count: int) -> list[Input]:
    """Draw `count` cases from the valid files with this seed."""
    cases: list[Input] = []
    texts = {file: (valid / file).read_bytes() for file in [*JSON_FILES, *LINES, "config.toml", *BYTES]}

    @seed(number)
    @settings(
        max_examples=count, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        how = data.draw(st.sampled_from([_json, _line, _setting, _bytes]))
        cases.append(how(texts, data))

    draw()
    return cases


def _json(texts: dict[str, bytes], data: st.DataObject) -> Input:
    """Another value or no value somewhere in a JSON file."""
    file = data.draw(st.sampled_from(sorted(JSON_FILES)))
    kind = data.draw(st.sampled_from(JSON_FILES[file]))
    tree, what = _damaged(json.loads(texts[file]), data)
    return Input(kind, f"{file}: {what}", holds(file, json.dumps(tree)))


def _line(texts: dict[str, bytes], data: st.DataObject) -> Input:
    """The same in the last line of a JSONL file."""
    file = data.draw(st.sampled_from(sorted(LINES)))
    *before, last = texts[file].splitlines(keepends=True)
    tree, what = _damaged(json.loads(last), data)
    content = b"".join(before) + json.dumps(tree).encode() + b"\n"
    return Input(LINES[file], f"{file}: {what}", holds(file, content))


def _setting(texts: dict[str, bytes], data: st.DataObject) -> Input:
    """Another value for a key of the configuration, on the command line."""
    tree = tomllib.loads(texts["config.toml"].decode())
    keys = [
        ".".join(path) for path in _paths(tree) if len(path) > 1 and not any(isinstance(part, int) for part in path)
    ]
    key = data.draw(st.sampled_from(keys))
    value = json.dumps(data.draw(ODD), ensure_ascii=False)
    return Input("configuration", f"{key}={value}", command=("config", "check", "config.toml", f"{key}={value}"))


def _bytes(texts: dict[str, bytes], data: st.DataObject) -> Input:
    """A cut, or other bytes, at a random place. In weights only the header: other numbers are other weights."""
    file = data.draw(st.sampled_from(sorted(BYTES)))
    whole = texts[file]
    at = data.draw(st.integers(0, min(len(whole), 3000) - 1))
    if data.draw(st.booleans()):
        return Input(BYTES[file], f"{file}: cut after {at} bytes", holds(file, whole[:at]))
    other = data.draw(st.binary(min_size=1, max_size=6))
    return Input(BYTES[file], f"{file}: {other!r} at {at}", holds(file, whole[:at] + other + whole[at + len(other) :]))


def _damaged(tree: Any, data: st.DataObject) -> tuple[Any, str]:
    path = data.draw(st.sampled_from(list(_paths(tree))))
    if not path:
        value = data.draw(ODD)
        return value, f"{value!r} in place of all"
    node = tree
    for part in path[:-1]:
        node = node[part]
    if data.draw(st.integers(0, 3)) == 0:
        del node[path[-1]]
        return tree, f"without {path}"
    node[path[-1]] = data.draw(ODD)
    return tree, f"{path} = {node[path[-1]]!r}"


def _paths(tree: Any, before: tuple[Any, ...] = (), most: int = 8) -> Iterator[tuple[Any, ...]]:
    """The path of every value; of a long list or table only the first ones."""
    yield before
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for count, (key, value) in enumerate(below):
        if not before or count < most:
            yield from _paths(value, (*before, key))
