"""A clean-up that is opened again: refused answers are asked for once more, and a person's decisions are applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import curiosft
from scripted import Reply, ScriptedServer
from test_rephrase import CLEAN, KEY, cleaner, post_in, rewriting, spoiler, verdict_on

from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.stages.rephrase.answer_log import STRICTER

POSTS = list(CLEAN)[:6]


def half_spoiled(number: int, message: str) -> Reply:
    """A model that spoils every other question."""
    verdict = verdict_on(message)
    return verdict or (spoiler if POSTS.index(post_in(message)) % 2 else cleaner)(number, message)


def command(server: ScriptedServer, *more: object) -> list[object]:
    settings = [f"rephrase.base_url={server.url}", "rephrase.model=m", f"rephrase.api_key_env={KEY}", "run.name=r"]
    return ["rephrase", "curio", *settings, "data.train=arithmetic-forum:train:6:1", "launch.processes=0", *more]


def rows(folder: Path, name: str = "questions") -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "runs" / "r" / "rephrase" / f"{name}.jsonl"))


def verdicts(folder: Path) -> list[str]:
    return [row["rephrase"]["verdict"] for row in rows(folder)]


def test_the_terminal_says_why_answers_were_refused(tmp_path: Path) -> None:
    with ScriptedServer(half_spoiled) as server:
        done = curiosft(*command(server), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "not used" in line]
    first = rows(tmp_path, "rejected")[0]
    assert line == f"rephrase: 3 not used: new number ({first['id']}: {first['reason'].partition(': ')[2]})"
    assert "`curiosft review runs/r` shows them; --retry-refused asks for them again" in done.stderr


def test_what_was_refused_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    with ScriptedServer(half_spoiled) as server:
        curiosft(*command(server), folder=tmp_path)
        assert verdicts(tmp_path) == ["accepted", "kept_original"] * 3
        first = len(server.bodies)
        done = curiosft(*command(server, "--retry-refused"), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        again = server.bodies[first:]
        assert {post_in(body["messages"][-1]["content"]) for body in again} == set(POSTS[1::2])
        assert len(again) == 6, "both ways of asking"
        assert {body["temperature"] for body in server.bodies[:first]} == {0.0}
        assert {body["temperature"] for body in again} == {0.7}
        curiosft(*command(server), folder=tmp_path)
        assert len(server.bodies) == first + 6, "without the option nothing is asked again"
    with ScriptedServer(cleaner) as server:
        before = StageDir(tmp_path / "runs" / "r" / "rephrase").status()
        done = curiosft(*command(server, "--retry-refused"), folder=tmp_path)
    assert before["state"] == "complete"
    assert done.returncode == 2, "another address is another setting"
    assert StageDir(tmp_path / "runs" / "r" / "rephrase").status() == before


def test_a_retry_that_is_interrupted_continues_where_it_was(tmp_path: Path) -> None:
    """The limit of requests ends the retry half-way; with a higher one only the rest is asked."""
    clean = False

    def script(number: int, message: str) -> Reply:
        return (cleaner if clean else half_spoiled)(number, message)

    with ScriptedServer(script) as server:
        curiosft(*command(server), folder=tmp_path)
        first, clean = len(server.bodies), True
        limits = ["rephrase.concurrency=1", f"rephrase.max_requests={first + 3}"]
        done = curiosft(*command(server, *limits, "--retry-refused"), folder=tmp_path)
        assert (done.returncode, len(server.bodies)) == (4, first + 3)
        done = curiosft(*command(server, "--retry-refused"), folder=tmp_path)
        assert "nothing is dropped" in done.stderr
        assert done.returncode == 0, done.stderr
        assert len(server.bodies) == first + 6, "three rewrites and their verdicts, each once"
    assert verdicts(tmp_path) == ["accepted"] * 6
    assert not any(message.endswith(STRICTER) for message in rewriting(server)[-3:])


def test_decisions_of_a_person_are_applied_and_stay(tmp_path: Path) -> None:
    decisions = [
        {"original_question": POSTS[0], "verdict": "kept_original", "question": ""},
        {"original_question": POSTS[1], "verdict": "accepted", "question": "What is 1+1?"},
        {"original_question": POSTS[2], "verdict": "rejected", "question": ""},
        {"original_question": POSTS[1], "verdict": "accepted", "question": "What is 2+2?"},
    ]
    file = tmp_path / "decisions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in decisions))
    with ScriptedServer(half_spoiled) as server:
        curiosft(*command(server), folder=tmp_path)
        asked = len(server.bodies)
        for more in (["--decisions", file], ["--decisions", file], [], ["--fresh"], ["--fresh", "--retry-refused"]):
            done = curiosft(*command(server, *more), folder=tmp_path)
            assert done.returncode == 0, done.stderr
            got = {row["original_question"]: row for row in rows(tmp_path)}
            assert list(got) == [POSTS[0], POSTS[1], *POSTS[3:]]
            assert [got[post]["question"] for post in POSTS[:2]] == [POSTS[0], "What is 2+2?"]
            record = got[POSTS[1]]["rephrase"]
            assert (record["verdict"], record["decided_by"], record["reason"]) == ("accepted", "person", "by hand")
            left_out = [row for row in rows(tmp_path, "rejected") if row["original_question"] == POSTS[2]]
            assert [(row["verdict"], row["decided_by"]) for row in left_out] == [("rejected", "person")]
            assert left_out[0]["answer"] == CLEAN[POSTS[2]], "the model's answer can still be looked at"
            if more != ["--fresh", "--retry-refused"]:
                assert len(server.bodies) == asked
    retried = {post_in(message) for message in rewriting(server)[9:]}
    assert retried == {POSTS[3], POSTS[5]}, "a person decided on the other one"


GOOD = {"original_question": POSTS[0], "verdict": "accepted", "question": "What is 1+1?"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"verdict": "maybe"}, "row 2: verdict is 'maybe'"),
        ({"question": "  "}, "row 2: question is empty"),
        ({"verdict": "rejected"}, "row 2: question is given, but the verdict is rejected"),
        ({"original_question": None}, "row 2: original_question is None"),
        ({"original_question": "What?\x1b[2J"}, "row 2: no question of this run is"),
    ],
)
def test_decisions_that_are_none_change_nothing(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **changed}) + "\n")
    with ScriptedServer(half_spoiled) as server:
        curiosft(*command(server), folder=tmp_path)
        before = rows(tmp_path, "answers")
        done = curiosft(*command(server, "--decisions", file), folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert "\x1b" not in done.stderr
    assert rows(tmp_path, "answers") == before
    assert StageDir(tmp_path / "runs" / "r" / "rephrase").is_complete()
