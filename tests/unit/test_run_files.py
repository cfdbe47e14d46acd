"""Files are complete or invisible; a torn last line is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import (
    OPTIONAL_NUMBER,
    TEXT,
    JsonLines,
    compress_jsonl,
    drop_torn_line,
    folder_in_one_step,
    is_complete,
    read_json,
    read_jsonl,
    write_text,
)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-1"
    with pytest.raises(RuntimeError), folder_in_one_step(target) as partial:
        (partial / "weights").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with folder_in_one_step(target) as partial:
        assert not target.exists()
        (partial / "weights").write_text("whole")
    assert is_complete(target)
    assert (target / "weights").read_text() == "whole"


def test_what_a_killed_writer_left_does_not_leak_into_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".checkpoint-1.partial"
    left.mkdir()
    (left / "stale").touch()
    with folder_in_one_step(tmp_path / "checkpoint-1"):
        pass
    assert not (tmp_path / "checkpoint-1" / "stale").exists()


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=5),
    st.binary(max_size=20).filter(lambda tail: b"\n" not in tail),
    st.integers(min_value=1, max_value=40),
)
def test_a_torn_last_line_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int]], tail: bytes, block: int
) -> None:
    file = tmp_path_factory.mktemp("torn") / "a.jsonl"
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(whole + tail)
    drop_torn_line(file, block)
    assert file.read_bytes() == whole


def test_rows_survive_reopening_and_compression(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with JsonLines(file) as lines:
        lines.append({"a": "é"})
    file.open("a").write('{"torn": ')
    with JsonLines(file) as lines:
        lines.append({"a": 2})
    assert list(read_jsonl(file)) == [{"a": "é"}, {"a": 2}]
    packed = compress_jsonl(file)
    assert not file.exists()
    assert list(read_jsonl(packed)) == [{"a": "é"}, {"a": 2}]


def test_a_full_disk_leaves_the_plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n')

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curiosft_cli.run.files.os.fsync", full)
    with pytest.raises(CurioError, match=r"cannot write .*a.jsonl.zst: the disk is full \(No space left") as raised:
        compress_jsonl(file)
    assert raised.value.exit_code == GUARD
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("line", [b"{torn\n", b"[" * 100_000 + b"\n", b"\xff\n", b"[1]\n"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + line)
    with pytest.raises(CurioError, match=r"a\.jsonl, line 2 is no JSON"):
        list(read_jsonl(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"7"])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CurioError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_the_umask_decides_who_reads_a_folder(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with folder_in_one_step(tmp_path / "made") as folder:
            (folder / "weights").touch(mode=0o600)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "made").iterdir()} == {
        "weights": 0o640,
        "COMPLETE": 0o640,
    }


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), 10**400, [], {}])
def test_an_entry_of_another_type_is_one_short_line(tmp_path: Path, value: object) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "strict": null}\n' + json.dumps({"id": "b", "strict": value}) + "\n")
    with pytest.raises(CurioError, match=r"rows\.jsonl, line 2: strict is .*, expected a number or null") as caught:
        list(read_jsonl(file, types={"id": TEXT, "strict": OPTIONAL_NUMBER}))
    assert len(str(caught.value)) < 500
