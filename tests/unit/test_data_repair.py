"""A repaired copy keeps what is right byte for byte, and the disk's refusals are one line with nothing left behind."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import disk_errors, file_in_one_step
from curiosft_cli.tools.data.repair import repaired_path, write_repaired


def test_kept_lines_are_kept_byte_for_byte(tmp_path: Path) -> None:
    lines = [b'{"question": "a",   "answer": 1.50}\n', b"\n", b"not json\n", b'{"question": "\\u0000b\xc3\xa9"}']
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"".join(lines))
    write_repaired(str(source), target, drop={3}, clean={4})
    assert target.read_bytes() == lines[0] + b"\n" + '{"question": "bé"}\n'.encode()
    assert source.read_bytes() == b"\xef\xbb\xbf" + b"".join(lines)


def test_parquet_keeps_schema_and_metadata(tmp_path: Path) -> None:
    schema = pa.schema(
        [("question", pa.large_string()), ("extra", pa.struct([("index", pa.int32())])), ("w", pa.float32())],
        metadata={"made": "by hand"},
    )
    rows: list[dict[str, Any]] = [
        {"question": f"q{at}\x00", "extra": {"index": at}, "w": None if at % 2 else 0.5} for at in range(700)
    ]
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), source)
    write_repaired(str(source), target, drop={1, 300, 700}, clean={2, 512})
    copy = pq.read_table(target)
    assert copy.schema.equals(schema, check_metadata=False)
    assert (copy.schema.metadata or {})[b"made"] == b"by hand"
    expected = [
        {**row, "question": row["question"].rstrip("\x00") if at in (2, 512) else row["question"]}
        for at, row in enumerate(rows, start=1)
        if at not in (1, 300, 700)
    ]
    assert copy.to_pylist() == expected


def test_json_and_generators(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{"a": "1\x01"}, {"a": "2"}, {"a": "3"}]))
    write_repaired(str(source), tmp_path / "out.json", drop={2}, clean={1})
    assert json.loads((tmp_path / "out.json").read_text()) == [{"a": "1"}, {"a": "3"}]
    write_repaired("arithmetic:train:3", tmp_path / "out.jsonl", drop={2}, clean=set())
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_names_of_copies(tmp_path: Path) -> None:
    for name, copy in (("a.parquet", "a.fixed.parquet"), ("a.csv", "a.fixed.jsonl")):
        (tmp_path / name).touch()
        assert repaired_path(str(tmp_path / name)) == tmp_path / copy
    assert repaired_path("owner/name") == Path("owner--name.fixed.jsonl")


def test_a_copy_of_csv_is_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\n1?,1\n2?,2\n3?\n4?,4\x07\n")
    write_repaired(str(tmp_path / "a.csv"), tmp_path / "b.jsonl", drop={1, 3}, clean={4})
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert rows == [{"question": "2?", "answer": "2"}, {"question": "4?", "answer": "4"}]
    with pytest.raises(CurioError, match=r"ends in \.csv"):
        write_repaired(str(tmp_path / "a.csv"), tmp_path / "b.csv", drop=set(), clean=set())


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "x"), 4, "disk is full"),
        (OSError(errno.EDQUOT, "x"), 4, "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 4, "disk is full"),
        (PermissionError(errno.EACCES, "x"), 2, "Permission denied"),
        (OSError(errno.EROFS, "x"), 2, "Read-only file system"),
    ],
)
def test_what_the_disk_refuses(tmp_path: Path, error: Exception, code: int, says: str) -> None:
    with pytest.raises(CurioError, match=says) as caught, file_in_one_step(tmp_path / "a" / "file") as partial:
        partial.write_text("half")
        raise error
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "a").iterdir()) == []


def test_other_errors_stay_themselves(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    taken: Any = tmp_path / "file"
    taken.write_text("mine")
    with pytest.raises(CurioError, match="exists already"), file_in_one_step(taken):
        raise AssertionError("never entered")
    assert taken.read_text() == "mine"
