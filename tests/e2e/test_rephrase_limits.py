"""What a clean-up may spend, what it says beforehand, and what it does with input that is not as it should be."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import curiosft, largest_file
from scripted import Reply, ScriptedServer
from test_rephrase import CLEAN, KEY, cleaner, config, judging, post_in, rewriting, rows, run

from curiosft_cli.engine.endpoint.budget import Price, price_of
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.lock import locked
from curiosft_cli.run.rundir import StageDir, begin
from curiosft_cli.run.sections import Config, Rephrase
from curiosft_cli.stages.rephrase.ask import dearest_price
from curiosft_cli.stages.rephrase.judge.verify import PROMPT
from curiosft_cli.stages.rephrase.review import review
from curiosft_cli.stages.rephrase.run import look_through, open_log, unanswered


def settings(server: ScriptedServer, source: str) -> list[str]:
    return [
        *(f"rephrase.base_url={server.url}", "rephrase.model=m", f"rephrase.api_key_env={KEY}"),
        *(f"rephrase.data={source}", "run.name=r", "rephrase.tokenizer=/nowhere"),
    ]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_requests": 7}, "7 requests were sent"),
        # A request of some 1800 characters is expected to cost some 650 tokens of $1 a million; it then costs 14.
        ({"budget_usd": 0.0008, "input_usd_per_million": 1.0, "output_usd_per_million": 1.0}, "budget_usd = 0.0008"),
    ],
)
def test_a_budget_stops_the_run_and_raising_it_goes_on(limit: dict[str, Any], message: str, tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        with pytest.raises(CurioError, match=message) as error:
            run(config(server, concurrency=1, **limit), tmp_path)
        assert error.value.exit_code == 4
        asked = len(server.bodies)
        assert 0 < asked < 40
        assert len(rows(tmp_path, "answers")) == asked, "what was paid for is saved"
        assert not (tmp_path / "rephrase" / "questions.jsonl").exists()
        assert json.loads((tmp_path / "rephrase" / "usage.json").read_text())["requests"] == asked
        summary = run(config(server), tmp_path)
    assert len(server.bodies) == summary["requests"] == 40, "a rewrite and a verdict each"


def test_all_requests_count_and_all_tokens_cost(tmp_path: Path) -> None:
    """20 rewrites and verdicts, one cut answer, one empty one: 42 requests of 11 + 3 tokens at $1 and $2 a million."""
    special = {0: Reply("What", finish="length"), 3: Reply("")}
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0}
    with ScriptedServer(lambda n, m: special.get(n) or cleaner(n, m)) as server:
        summary = run(config(server, **prices), tmp_path)
    assert (summary["requests"], summary["prompt_tokens"], summary["completion_tokens"]) == (42, 42 * 11, 42 * 3)
    assert summary["cost_usd"] == pytest.approx(42 * (11 + 2 * 3) / 1e6)


def test_a_price_says_where_it_comes_from() -> None:
    listed = price_of(Rephrase())
    assert listed is not None and listed.origin == "list price of September 2025"
    assert price_of(Rephrase(output_usd_per_million=9.0)) == Price(listed.input_usd, 9.0, "as configured")
    assert price_of(Rephrase(base_url="http://localhost:1/v1")) == Price(0.0, 0.0, "a server on this machine")
    assert price_of(Rephrase(model="unheard-of")) is None


def test_the_dearer_of_two_models_prices_both() -> None:
    dear = price_of(Rephrase(model="gpt-4o"))
    assert dearest_price(Rephrase(model="gpt-4o-mini", verify_model="gpt-4o")) == dear
    assert dearest_price(Rephrase(model="gpt-4o", verify_model="gpt-4o-mini")) == dear
    assert dearest_price(Rephrase(model="gpt-4o-mini", verify_model="gpt-4o", verify="off")) != dear
    assert dearest_price(Rephrase(model="gpt-4o", verify_model="unheard-of")) is None


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        there = config(server, base_url="https://api.example.com/v1", budget_usd=1.0)
        os.environ[KEY] = "k"
        try:
            with pytest.raises(CurioError, match="the price of 'm' is not known"):
                run(there, tmp_path)
        finally:
            del os.environ[KEY]
    assert not server.bodies


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        arguments = [*settings(server, "arithmetic-forum:train:20:1"), "rephrase.input_usd_per_million=2"]
        done = curiosft("rephrase", "curio", *arguments, "--dry-run", "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)
        assert not server.bodies
        assert not list(tmp_path.iterdir())
        assert (plan["rows"], plan["requests"], plan["most_requests"]) == (20, 20, 80)
        assert plan["usd"] == pytest.approx(plan["prompt_tokens"] * 2 / 1e6)
        assert "ESTIMATED" in plan["counted_with"]
        assert plan["price_from"] == "as configured"
        assert curiosft("rephrase", "curio", *arguments, folder=tmp_path).returncode == 0
        again = curiosft("rephrase", "curio", *arguments, "--dry-run", folder=tmp_path)
    assert "requests  0," in again.stdout
    assert len(server.bodies) == 40


@pytest.mark.parametrize("at_hand", [0, 3, 20])
def test_every_missing_question_is_asked_once_however_few_are_at_hand(at_hand: int, tmp_path: Path) -> None:
    stage = StageDir(tmp_path / "rephrase")
    with ScriptedServer(cleaner) as server:
        made = config(server, "arithmetic-forum:train:20:1", "arithmetic-forum:train:5:1")
    with open_log(made, stage) as log:
        survey = look_through(made, stage, log, lambda *_: None, at_hand=at_hand)
    assert list(unanswered(made, stage, survey)) == list(CLEAN)[:20]


def test_starting_over_pays_for_nothing_twice(tmp_path: Path) -> None:
    from curiosft_cli.run.rundir import RunDir

    with ScriptedServer(cleaner) as server:
        made = config(server)
        begin(RunDir(tmp_path), "rephrase", made)
        run(made, tmp_path)
    begin(RunDir(tmp_path), "rephrase", made, fresh=True)
    assert not (tmp_path / "rephrase" / "questions.jsonl").exists()
    run(made, tmp_path)  # nobody listens any more
    assert len(rows(tmp_path)) == 20


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        ["--fresh"],
        ["--retry-refused"],
        ["--decisions", "decisions.jsonl"],
        ["--judge", "pairs.jsonl", "--out", "out.jsonl"],
        ["--calibrate", "3"],
        [],
    ],
)
def test_two_commands_never_write_the_same_answers(more: list[str], ended: bool, tmp_path: Path) -> None:
    """Two would pay for the same questions."""
    pairs_file(tmp_path)
    decision = {"original_question": next(iter(CLEAN)), "verdict": "rejected", "question": ""}
    (tmp_path / "decisions.jsonl").write_text(json.dumps(decision) + "\n")
    stage = tmp_path / "runs" / "r" / "rephrase"
    with ScriptedServer(cleaner) as server:
        command = ["rephrase", "curio", *settings(server, "arithmetic-forum:train:4:1")]
        if ended:
            assert curiosft(*command, folder=tmp_path).returncode == 0
        before = len(server.bodies), [path.read_bytes() for path in stage.glob("answers.jsonl")]
        with locked(stage):
            done = curiosft(*command, *more, folder=tmp_path)
        if ended and not more:
            assert done.returncode == 0, "nothing is left to do"
        else:
            assert done.returncode == 2
            assert f"is in use by process {os.getpid()}" in done.stderr
        assert (len(server.bodies), [path.read_bytes() for path in stage.glob("answers.jsonl")]) == before


def test_a_line_that_is_no_answer_is_asked_again(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        log = tmp_path / "rephrase" / "answers.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join([lines[0][:30] + "\n", "null\n", "\0\n", *lines[1:]]))
        before = [{**row, "rephrase": {**row["rephrase"], "time": ""}} for row in rows(tmp_path)]
        run(config(server), tmp_path)
    assert len(server.bodies) == 41
    assert [{**row, "rephrase": {**row["rephrase"], "time": ""}} for row in rows(tmp_path)] == before


def parquet(path: Path, posts: list[str], **more: Any) -> pa.Table:
    table = pa.table(
        {
            "when": pa.array(range(len(posts)), pa.timestamp("ns")),
            "problem": pa.array(posts, pa.large_string()),
            "answer": pa.array(["1"] * len(posts)),
            "blob": pa.array([b"\x00\xff"] * len(posts)),
            "level": pa.array(["a"] * len(posts)).dictionary_encode(),
            **more,
        }
    ).replace_schema_metadata({b"mine": b"kept", b"huggingface": b"{}"})
    pq.write_table(table, path)
    return table


def test_parquet_comes_out_as_parquet_with_the_other_columns_untouched(tmp_path: Path) -> None:
    """Two files of one schema; nanoseconds, bytes and dictionaries, which JSON and Python do not hold, survive."""
    posts = list(CLEAN)[:30]
    tables = [parquet(tmp_path / "a.parquet", posts[:10]), parquet(tmp_path / "b.parquet", posts[10:])]
    with ScriptedServer(cleaner) as server:
        run(config(server, str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")), tmp_path)
    before, after = pa.concat_tables(tables), pq.read_table(tmp_path / "rephrase" / "questions.parquet")
    for name in ("when", "answer", "blob", "level"):
        assert after.schema.field(name).equals(before.schema.field(name))
        assert after[name].combine_chunks().equals(before[name].combine_chunks()), name
    assert after["problem"].to_pylist() == [CLEAN[post] for post in posts]
    assert after["original_question"].to_pylist() == posts
    assert after.schema.metadata == {b"mine": b"kept"}


def test_a_data_set_of_the_hub_comes_out_as_a_table_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    posts = list(CLEAN)[:30]
    parquet(tmp_path / "a.parquet", posts)
    cached = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: {"owner/forum": cached}[name])
    with ScriptedServer(cleaner) as server:
        run(config(server, "owner/forum", "owner/forum"), tmp_path)
    after = pq.read_table(tmp_path / "rephrase" / "questions.parquet")
    assert after["problem"].to_pylist() == 2 * [CLEAN[post] for post in posts]
    for name in ("when", "answer", "blob", "level"):
        before = cached.data.table[name]
        assert after.schema.field(name).type == before.type
        assert after[name].combine_chunks().equals(pa.chunked_array([*before.chunks] * 2).combine_chunks()), name


def test_a_rejected_row_is_left_out_of_a_table(tmp_path: Path) -> None:
    posts = [next(iter(CLEAN)), "Great community, thank you all!", list(CLEAN)[1]]
    parquet(tmp_path / "a.parquet", posts)
    none = Reply("There is no math problem in this post.")
    with ScriptedServer(lambda n, m: cleaner(n, m) if post_in(m) in CLEAN else none) as server:
        run(config(server, str(tmp_path / "a.parquet")), tmp_path)
    after = pq.read_table(tmp_path / "rephrase" / "questions.parquet")
    assert after["original_question"].to_pylist() == [posts[0], posts[2]]
    assert [value.value for value in after["when"]] == [0, 2]


def test_what_json_cannot_hold_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", list(CLEAN)[:2])
    with ScriptedServer(cleaner) as server, pytest.raises(CurioError, match="column when holds a"):
        run(config(server, str(tmp_path / "a.parquet"), "arithmetic-forum:train:3:1"), tmp_path)
    assert not list((tmp_path / "rephrase").glob("*questions*"))


def test_what_was_cleaned_before_is_refused(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        with pytest.raises(CurioError, match="were cleaned already"):
            run(config(server, str(tmp_path / "rephrase" / "questions.jsonl")), tmp_path / "second")


def test_a_question_beyond_judging_is_kept_and_not_paid_for(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    good = next(iter(CLEAN))
    source.write_text("".join(json.dumps({"question": text}) + "\n" for text in ("What is 1+" + "1" * 1_000_000, good)))
    with ScriptedServer(cleaner) as server:
        summary = run(config(server, str(source)), tmp_path)
    assert len(rewriting(server)) == 1
    assert summary["reasons"] == {"too long to ask": 1}
    assert [len(row["question"]) for row in rows(tmp_path)] == [1_000_010, len(CLEAN[good])]


BAD = {
    "empty.jsonl": (b"", "is empty"),
    "nul.jsonl": (b'{"question": "What is 3+4?\\u0000"}\n', "row 1: column question: found NUL"),
    "raw-nul.jsonl": (b'{"question": "x"}\n\x00\x00\n', "row 2: found NUL bytes"),
    "latin.jsonl": ('{"question": "Größe?"}\n'.encode("latin-1"), "row 1: found byte 0xf6"),
    "utf16.jsonl": ('{"question": "x"}\n'.encode("utf-16"), "UTF-16"),
    "half.jsonl": (b'{"question": "What is \\ud83d 3+4?"}\n', "row 1: column question"),
    "mixed.jsonl": (b'{"question": "What is 3+4?"}\n{"text": "other"}\n', "row 2: found the columns text"),
    "cut.parquet": (b"PAR1\x00\x00", "not a whole parquet file"),
    "folder.jsonl": (None, "a folder"),
    "missing.jsonl": ((), "no data file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_nothing_is_asked(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    if content is None:
        (tmp_path / name).mkdir()
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    with ScriptedServer(cleaner) as server, pytest.raises(CurioError) as error:
        run(config(server, str(tmp_path / name)), tmp_path)
    assert error.value.exit_code == 2
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not server.bodies
    assert not list((tmp_path / "rephrase").glob("*questions*"))


def test_a_disk_that_is_full_among_the_answers_stops_with_one_line(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        made = config(server, "arithmetic-forum:train:50:1")
        with largest_file(4_000), pytest.raises(CurioError, match=r"answers\.jsonl.*full") as error:
            run(made, tmp_path)
        assert error.value.exit_code == 4
        assert not list((tmp_path / "rephrase").glob("*questions*"))
        run(made, tmp_path)
    assert len(list(read_jsonl(tmp_path / "rephrase" / "questions.jsonl"))) == 50


def test_a_disk_that_is_full_at_the_end_loses_no_answer(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", list(CLEAN)[:10], scan=pa.array([os.urandom(30_000) for _ in range(10)]))
    with ScriptedServer(cleaner) as server:
        made = config(server, str(tmp_path / "a.parquet"))
        with largest_file(100_000), pytest.raises(CurioError, match=r"questions\.parquet.*full") as error:
            run(made, tmp_path)
        assert error.value.exit_code == 4
        assert not list((tmp_path / "rephrase").glob("*questions*"))
        run(made, tmp_path)
    assert len(rewriting(server)) == pq.read_table(tmp_path / "rephrase" / "questions.parquet").num_rows == 10


def test_a_folder_that_cannot_be_written_stops_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with ScriptedServer(cleaner) as server:
        arguments = settings(server, "arithmetic-forum:train:5:1")
        done = curiosft("rephrase", "curio", *arguments, f"run.root={tmp_path / 'file' / 'runs'}", folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Not a directory" in done.stderr.splitlines()[-1]


def test_the_review_page_holds_every_row_and_no_markup_of_a_post(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    evil = "Hi! </script><img src=x onerror=alert(1)> What is 3+4? Thanks"
    texts = [evil, "Great community!", *list(CLEAN)[:20]]
    source.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))

    def script(n: int, message: str) -> Reply:
        post = post_in(message)
        if message.startswith(PROMPT):
            return judging(n, message)
        return Reply("What is 3+4?") if "3+4" in post else cleaner(n, message) if post in CLEAN else Reply("No problem")

    with ScriptedServer(script) as server:
        made: Config = config(server, str(source))
        run(made, tmp_path)
    review(str(tmp_path), samples=3)
    page = (tmp_path / "rephrase" / "review.html").read_text()
    data = page.partition('id="data">')[2].partition("</script>")[0]
    held = json.loads(data)
    assert sorted(row[6] for row in held) == sorted(texts)
    assert {row[6]: row[7] for row in held if row[6] in CLEAN} == {post: CLEAN[post] for post in list(CLEAN)[:20]}
    assert "<img" not in page
    assert page.count("</script>") == 2
    out = capsys.readouterr().out
    assert "22 questions: 21 accepted, 1 rejected" in out
    assert len(re.findall(r"^in-\d+: (?:accepted|kept_original|rejected) \(", out, re.MULTILINE)) == 3


PAIRS = [
    ("a", "Problem 3. What is 3+4?", "What is 3+4?", "accepted", "rule only label removed"),
    ("b", "Hi! What is 3+4? Thanks", "What is 3+5?", "refused", "rule new number"),
    ("c", "Hi! What is 3+4? Thanks", "What is 3+4?", "undecided", "none"),
]


def pairs_file(folder: Path) -> Path:
    source = folder / "pairs.jsonl"
    lines = [json.dumps(dict(zip(("id", "post", "rewrite"), pair[:3], strict=True))) for pair in PAIRS]
    source.write_text("\n".join(lines))  # without a line break at the end, as editors leave it
    return source


@pytest.mark.parametrize("address", ["local", "http://127.0.0.1:9/v1", "https://api.deepseek.com"])
def test_rules_judge_rewrites_from_elsewhere_without_any_endpoint(address: str, tmp_path: Path) -> None:
    arguments = ["--judge", str(pairs_file(tmp_path)), "--out", str(tmp_path / "out.jsonl"), "rephrase.verify=off"]
    done = curiosft("rephrase", "curio", f"rephrase.base_url={address}", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["verdict"], row["decided_by"]) for row in got] == [(p[0], *p[3:]) for p in PAIRS]
    assert all(row["reason"] for row in got)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl"]


def test_a_verifier_judges_rewrites_from_elsewhere_once(tmp_path: Path) -> None:
    with ScriptedServer(judging) as server:
        arguments = [
            *settings(server, "arithmetic:train:5"),
            "--judge",
            str(pairs_file(tmp_path)),
            "--out",
            "out.jsonl",
        ]
        for _ in range(2):
            done = curiosft("rephrase", "curio", *arguments, folder=tmp_path)
            assert done.returncode == 0, done.stderr
    assert len(server.bodies) == 1
    got = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in got] == ["accepted", "refused", "accepted"]
    assert got[2]["decided_by"] == "verifier"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1, "post": "x"}', "row 1: rewrite is None"),
        ('{"id": 1, "post": "x", "rewrite": 5}', "row 1: rewrite is 5"),
        ('{"id": null, "post": "x", "rewrite": "x"}', "row 1: id is None"),
        ("not json", "row 1"),
        ("[1]", "row 1: found list"),
        ("", "is empty"),
    ],
)
def test_rows_that_are_no_pairs_are_one_line(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(line)
    arguments = ["--judge", "bad.jsonl", "--out", "out.jsonl", "rephrase.verify=off"]
    done = curiosft("rephrase", "curio", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_calibration_counts_the_planted_faults_that_the_verifier_finds(tmp_path: Path) -> None:
    def careless(_: int, message: str) -> Reply:
        """A verifier that only sees what makes a text shorter."""
        texts = json.loads(message.removeprefix(PROMPT))
        same = len(texts["text"]) >= len(texts["post"])
        return Reply(json.dumps({"same": same, "differences": [] if same else ["something is gone"]}))

    with ScriptedServer(careless) as server:
        done = curiosft(
            "rephrase", "curio", *settings(server, "arithmetic:train:8"), "--calibrate", "5", folder=tmp_path
        )
    assert done.returncode == 0, done.stderr
    table = {line[:12].strip(): line[12:].split() for line in done.stdout.splitlines()}
    assert table["no fault"][:1] == ["5"]
    assert table["no fault"][3] == "0.0%"
    assert table["question"][3] == "100.0%"
    assert table["leak"][3] == "0.0%"
    assert {"number", "question", "leak", "all faults"} <= set(table)
