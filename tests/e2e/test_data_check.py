"""`curiosft data check` as a user runs it: what it finds, the copy it writes, and one line for whatever is no data."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import curiosft, last_of_each

pytestmark = pytest.mark.e2e

THOUGHT = "Add them.\n</think>\n\nThe answer is $\\boxed{{{}}}$."
TRAIN = ["A farmer has $2+3$ cows. How many cows are there in all on the farm of this farmer?", "What is $7 \\cdot 6$?"]


def row(question: str, answer: object, said: object = None, **more: Any) -> dict[str, Any]:
    return {
        "question": question,
        "answer": answer,
        "response": THOUGHT.format(answer if said is None else said),
        **more,
    }


def write(path: Path, rows: list[Any]) -> Path:
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


ROWS: dict[str, list[Any]] = {
    "fine": [row(TRAIN[0], 5, id="a"), row(TRAIN[1], 42, id="b")],
    "unreadable": [b'{"question": "caf\xe9", "answer": "1"}', b"{", b'{"question": "a\x00"}', [1], b"[" * 50_000],
    "columns": [{"problem": "Which is it, then?", "answer": 3, "response": THOUGHT.format(3)}],
    "characters": [row("What is\x00 one?", 1)],
    "replaced": [row("Is the caf\ufffd open?", 1)],
    "long_question": [row("Why? " * 200_000, 1)],
    "repeated": [row("What is $7\\cdot6$?", 42)],
    "conflict": [row("What is $7\\cdot 6$ ?", 43)],
    "repeated_id": [row("What is the id?", 1, id="a")],
    "no_gold": [{"question": "And the gold?", "response": THOUGHT.format(1)}],
    "ungradable": [row("What is unparsable?", "$$", "1")],
    "cut_gold": [row("What is cut?", "\\frac{1}{", "\\frac{1}{2}")],
    "no_response": [{"question": "Who says what?", "answer": 1}],
    "think": [{"question": "What is six?", "answer": 6, "response": "It is \\boxed{6}."}],
    "box": [{"question": "What is seven?", "answer": 7, "response": "Hm.\n</think>\nIt is 7."}],
    "wrong_expert": [row("What is nine?", 9, 8)],
    "long_prompt": [row("What is it? " * 30, 1)],
    "long_response": [{"question": "What is long?", "answer": 1, "response": "so " * 300 + THOUGHT.format(1)}],
    "language": [row("Wie viele Zahlen gibt es?", 3)],
    "contaminated": [row("Compute $\\sqrt{49}+1$", 8)],
}  # fmt: skip
NOTES = {"repeated_id", "no_response", "language"}


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "messy.jsonl", [line for rows in ROWS.values() for line in rows])


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("benchmarks")
    write(folder / "amc.jsonl", [{"id": "amc-7", "question": "Compute \\(\\sqrt{49} + 1\\).", "answer": "8"}])
    return [
        f"model.path={tiny_model}", "model.system_prompt=", "data.max_prompt_length=300", "sft.max_response_length=400",
        'check.benchmarks=["amc"]', f"eval.data.amc={folder / 'amc.jsonl'}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(messy: Path, settings: list[str]) -> dict[str, Any]:
    done = curiosft("data", "check", messy, *settings, "--json")
    assert done.returncode == 2, done.stderr
    return json.loads(done.stdout)


def expected_rows(kind: str) -> list[int]:
    start = 1 + sum(len(rows) for name, rows in list(ROWS.items())[: list(ROWS).index(kind)])
    return list(range(start, start + len(ROWS[kind])))


@pytest.mark.parametrize("kind", [name for name in ROWS if name != "fine"])
def test_each_kind_is_found_where_it_is(report: dict[str, Any], kind: str) -> None:
    found = report["problems"][kind]
    assert found["rows"] == ([2] if kind == "conflict" else []) + expected_rows(kind)
    assert found["problem"] == (kind not in NOTES)
    assert found["fix"]


def test_nothing_else_is_found(report: dict[str, Any]) -> None:
    assert set(report["problems"]) == {*ROWS} - {"fine"}
    assert report["rows"] == sum(len(rows) for rows in ROWS.values())
    assert report["contamination"]["hits"] == [
        {"row": expected_rows("contaminated")[0], "benchmark": "amc", "id": "amc-7", "kind": "same", "overlap": 1.0}
    ]
    assert report["layout"] == "question + answer"
    assert report["unchecked"] == {}


def test_tokens_are_those_of_training(tmp_path: Path, tiny_model: Path, settings: list[str]) -> None:
    from curiosft_cli.data.sources import read_source
    from curiosft_cli.run.sections import Model
    from curiosft_cli.train.encode import PromptFormat, encode_row
    from curiosft_cli.train.load import load_tokenizer

    file = write(tmp_path / "fine.jsonl", [*ROWS["fine"], {"question": "Who?", "answer": 1}])
    done = curiosft("data", "check", file, *settings, "--json")
    tokens = json.loads(done.stdout)["tokens"]
    tokenizer, style = load_tokenizer(str(tiny_model), Model()), PromptFormat.from_config(Model(system_prompt=""))
    rows = [encode_row(tokenizer, problem, style, 10_000) for _, problem in read_source(str(file), run_dir=tmp_path)]
    assert tokens["prompt"]["longest"] == max(len(r.prompt_ids) for r in rows)
    assert tokens["response"]["longest"] == max(len(r.response_ids) for r in rows[:2])
    assert tokens["response"]["median"] == min(len(r.response_ids) for r in rows[:2])


def test_the_repaired_copy_is_clean_and_the_input_untouched(messy: Path, settings: list[str], tmp_path: Path) -> None:
    before, copy = messy.read_bytes(), tmp_path / "copy.jsonl"
    done = curiosft("data", "check", messy, *settings, "--fix", "--drop-contaminated", "--out", copy)
    assert messy.read_bytes() == before
    assert f"wrote {copy}" in done.stdout
    again = curiosft("data", "check", copy, *settings, "--json")
    # What no program can mend is left: another layout, a wrong encoding, a response that sft will cut.
    assert set(json.loads(again.stdout)["problems"]) - NOTES == {"columns", "replaced", "long_response"}
    assert copy.read_bytes().startswith(before.splitlines(keepends=True)[0])
    once_more = curiosft("data", "check", messy, *settings, "--fix", "--out", copy)
    assert (once_more.returncode, once_more.stdout) == (2, "")
    assert "exists already" in once_more.stderr


def test_solved_problems_make_the_exit_code_0(tmp_path: Path) -> None:
    file = write(tmp_path / "twice.jsonl", [*ROWS["fine"], ROWS["fine"][0] | {"id": "c"}])
    assert curiosft("data", "check", file, "check.depth=quick").returncode == 2
    assert curiosft("data", "check", file, "check.depth=quick", "--fix").returncode == 0
    assert (tmp_path / "twice.fixed.jsonl").read_text() == "".join(file.read_text().splitlines(keepends=True)[:2])


def test_what_is_out_of_reach_is_told_and_ends_with_3(tmp_path: Path, settings: list[str]) -> None:
    file = write(tmp_path / "fine.jsonl", ROWS["fine"])
    unreachable = last_of_each(*settings, 'check.benchmarks=["amc","aime24"]', "model.path=nobody/nothing")
    done = curiosft("data", "check", file, *unreachable)
    assert done.returncode == 3
    assert "NOT CHECKED contamination: no questions of aime24" in done.stdout
    assert "NOT CHECKED token lengths: cannot open a tokenizer at nobody/nothing" in done.stdout
    done = curiosft("data", "check", file, *unreachable, "--drop-contaminated")
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [file])


def test_what_the_rows_show_is_printed_before_a_benchmark_is_looked_up(tmp_path: Path, settings: list[str]) -> None:
    """The hub takes the connection and never answers."""
    file = write(tmp_path / "twice.jsonl", ROWS["fine"] * 2)
    unnamed = [one for one in settings if not one.startswith("eval.data")]
    with socket.create_server(("127.0.0.1", 0)) as hub:
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "curiosft_cli.cli", "data", "check", str(file), *unnamed]
        waiting = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert waiting.stdout
            assert any("PROBLEM" in line for line in waiting.stdout)
            assert waiting.poll() is None
        finally:
            waiting.kill()
            waiting.communicate()


def test_benchmarks_that_nobody_named_do_not_change_the_exit_code(tmp_path: Path, settings: list[str]) -> None:
    file = write(tmp_path / "fine.jsonl", ROWS["fine"])
    unnamed = [one for one in settings if not one.startswith("check.benchmarks")]
    done = curiosft("data", "check", file, *unnamed)
    assert done.returncode == 0
    assert "NOT CHECKED contamination: no questions of" in done.stdout


def test_clean_data_ends_with_0_and_one_screen_without_torch_in_the_parent(tmp_path: Path, settings: list[str]) -> None:
    code = (
        "import sys; from curiosft_cli.cli import main as cli; sys.argv = ['curiosft', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    print('code', stop.code)\n"
        "print('loaded', sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    file = write(tmp_path / "fine.jsonl", ROWS["fine"])
    command = [sys.executable, "-c", code, "data", "check", str(file), *settings, "--fix"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    *screen, ended, loaded = done.stdout.splitlines()
    assert (ended, loaded) == ("code 0", "loaded []"), done.stdout
    assert "no problem found" in done.stdout
    assert "no copy was written" in done.stdout
    assert len(screen) < 24
    assert [path.name for path in tmp_path.iterdir()] == ["fine.jsonl"]


def parquet(path: Path, keep: float) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([row(f"What is {at}?", at) for at in range(2000)]), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def hole(path: Path) -> Path:
    whole = bytearray(parquet(path, 1.0).read_bytes())
    whole[4 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 4)
    path.write_bytes(whole)
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: folder / "no.jsonl", "there is no data file"),
    "folder": (lambda folder: folder, "is a folder"),
    "empty": (lambda folder: write(folder / "empty.jsonl", []), "is empty"),
    "cut parquet": (lambda folder: parquet(folder / "cut.parquet", 0.5), "not a whole parquet file"),
    "spoiled parquet": (lambda folder: hole(folder / "hole.parquet"), r"not a whole parquet file \(after row \d+\)"),
    "empty parquet": (lambda folder: parquet(folder / "zero.parquet", 0.0), "not a whole parquet file|is empty"),
    "utf-16": (lambda folder: (folder / "w.jsonl").write_text('{"question": "a"}', "utf-16") and folder / "w.jsonl", "UTF-16"),
    "not json": (lambda folder: write(folder / "a.json", [b'[{"question": 1}, ']), "is not JSON"),
    "one object": (lambda folder: write(folder / "a.json", [{"question": "q"}]), "expected a list"),
    "xls": (lambda folder: write(folder / "a.xls", [b"question,answer"]), "expected a data file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_what_is_no_data_is_one_line(tmp_path: Path, kind: str) -> None:
    make, says = BAD_FILES[kind]
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = curiosft("data", "check", path, "check.depth=quick", "--fix")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(lines) == 1 and lines[0].startswith("curiosft: "), done.stderr
    assert re.search(says, lines[0]), lines
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_full_disk_leaves_nothing_and_ends_with_4(tmp_path: Path, suffix: str) -> None:
    rows = [row(f"What is {at}? {os.urandom(300).hex()}", at) for at in range(300)]
    file = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        write(file, [*rows, rows[0]])
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), file)
    done = curiosft("data", "check", file, "check.depth=quick", "--fix", file_limit=50_000)
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "twice.jsonl", [*ROWS["fine"], *ROWS["fine"]])
    out = file / "copy.jsonl"
    done = curiosft("data", "check", file, "check.depth=quick", "--fix", "--out", out)
    assert done.returncode == 2, done.stderr
    assert f"cannot write {out}" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_row_of_the_wrong_type_and_an_unknown_setting(tmp_path: Path) -> None:
    file = write(tmp_path / "odd.jsonl", [{"question": 7, "answer": "1"}, {"question": "q", "answer": {"a": 1}}])
    done = curiosft("data", "check", file, "check.depth=quick")
    assert done.returncode == 2
    assert "row 1: column question: found int 7, expected text" in done.stdout
    done = curiosft("data", "check", file, "check.dept=quick")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'depth'?" in done.stderr
