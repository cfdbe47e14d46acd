"""What a tracker stored, read from its files."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass
class Tracked:
    """What one tracker has.

    Attributes:
        runs: ids or folders of its runs.
        keys: of the numbers, by step.
        tables: texts of the tables, by step and name.
        config: the text of the settings.
    """

    runs: set[str] = field(default_factory=set)
    keys: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    tables: dict[tuple[int, str], str] = field(default_factory=dict)
    config: str = ""


def tensorboard(stage: Path) -> Tracked:
    """TensorBoard's event files."""
    proto: Any = import_module("tensorboardX.proto.event_pb2")

    found = Tracked()
    for file in sorted(stage.rglob("events.out.tfevents.*")):
        found.runs.add(str(file.parent))
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = proto.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                if value.tag == "config/text_summary":
                    found.config = str(value.tensor.string_val)
                elif value.tag.endswith("/text_summary"):
                    text = value.tensor.string_val[0].decode()
                    found.tables[event.step, value.tag.removesuffix("/text_summary")] = text
                else:
                    found.keys[event.step].add(value.tag)
    return found


def wandb(stage: Path) -> Tracked:
    """The files of wandb's offline mode, one for each process."""
    proto: Any = import_module("wandb.proto.wandb_internal_pb2")

    found = Tracked()
    for file in sorted(stage.rglob("*.wandb")):
        for content in _leveldb_log(file.read_bytes()):
            record = proto.Record.FromString(content)
            if record.HasField("run"):
                found.runs.add(record.run.run_id)
                found.config = found.config or str(record.run.config)
            for item in record.history.item:
                key, *below = [*item.nested_key] or [item.key]
                step = record.history.step.num
                if below == ["path"]:
                    table = next(file.parent.rglob(Path(json.loads(item.value_json)).name))
                    found.tables[step, key] = table.read_text()
                elif not below and not key.startswith("_"):
                    found.keys[step].add(key)
    return found


def trackio(folder: Path) -> Tracked:
    """Trackio's data base."""
    found, (file,) = Tracked(), folder.glob("*.db")
    with sqlite3.connect(file) as base:
        for run, step, metrics in base.execute("select run_id, step, metrics from metrics"):
            found.runs.add(run)
            for key, value in json.loads(metrics).items():
                if isinstance(value, dict):
                    found.tables[step, key] = json.dumps(value)
                else:
                    found.keys[step].add(key)
        found.config = str(base.execute("select config from configs").fetchall())
    return found


def _leveldb_log(content: bytes, header: int = 7, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, after a header."""
    place, record = header, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""
