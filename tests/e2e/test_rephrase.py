"""The rephrase stage against a scripted endpoint: results, restarts after a kill, faults, and no key anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted import Reply, ScriptedServer

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.data.sources import read_source
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl, write_json
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config, Data, Rephrase
from curiosft_cli.stages.rephrase.answer_log import STRICTER
from curiosft_cli.stages.rephrase.judge.rules import Judgement
from curiosft_cli.stages.rephrase.judge.verify import PROMPT
from curiosft_cli.stages.rephrase.run import rephrase

KEY = "TEST_REPHRASE_KEY"
PROBLEMS = generate("train", 200, 1)
RECORD = ("verdict", "reason", "decided_by", "differences", "flags")
CLEAN = {noisy(problem, 1).question: problem.question for problem in PROBLEMS}
BEFORE, AFTER = REPHRASE_PROMPT.split("{question}")


def post_in(message: str) -> str:
    return message.removesuffix(STRICTER).removeprefix(BEFORE).removesuffix(AFTER)


def verdict_on(message: str) -> Reply | None:
    """What a verifier that is always right says; None if the message asks for a rewrite."""
    if not message.startswith(PROMPT):
        return None
    texts = json.loads(message.removeprefix(PROMPT))
    same = CLEAN.get(texts["post"]) == texts["text"]
    return Reply(json.dumps({"same": same, "differences": [] if same else ["not the problem"]}))


def judging(_: int, message: str) -> Reply:
    """A verifier that finds every text good."""
    assert message.startswith(PROMPT)
    return Reply('{"same": true, "differences": []}')


def rewriting(server: ScriptedServer) -> list[str]:
    """The messages that asked for a rewrite; the others asked for a verdict."""
    return [message for message in server.messages if not message.startswith(PROMPT)]


def cleaner(_: int, message: str) -> Reply:
    """A model that does its work well."""
    return verdict_on(message) or Reply(CLEAN[post_in(message)])


def spoiler(_: int, message: str) -> Reply:
    """A model that changes the first number."""
    if verdict := verdict_on(message):
        return verdict
    clean = CLEAN[post_in(message)]
    number = next(word for word in clean.split() if word.isdigit())
    return Reply(clean.replace(number, str(int(number) + 100), 1))


def config(server: ScriptedServer, *sources: str, **settings: Any) -> Config:
    options: dict[str, Any] = {"base_url": server.url, "model": "m", "api_key_env": KEY, "concurrency": 8, **settings}
    return Config(data=Data(train=sources or ("arithmetic-forum:train:20:1",)), rephrase=Rephrase(**options))


def run(settings: Config, folder: Path) -> dict[str, Any]:
    return rephrase(settings, StageDir(folder / "rephrase"), lambda *_: None)


def rows(folder: Path, name: str = "questions") -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "rephrase" / f"{name}.jsonl"))


def test_every_question_comes_out_clean_and_in_order(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        summary = run(config(server), tmp_path)
    got, posts = rows(tmp_path), [noisy(problem, 1) for problem in PROBLEMS[:20]]
    assert [row["original_question"] for row in got] == [post.question for post in posts]
    assert [row["question"] for row in got] == [problem.question for problem in PROBLEMS[:20]]
    assert [(row["answer"], row["response"]) for row in got] == [(post.answer, post.response) for post in posts]
    assert set(got[0]["rephrase"]) == {"model", "prompt_hash", "time", "tokens", *RECORD}
    assert (got[0]["rephrase"]["verdict"], got[0]["rephrase"]["model"]) == ("accepted", "m")
    assert summary["verdicts"] == {"accepted": 20}
    assert (summary["answers"], summary["prompt_tokens"], summary["completion_tokens"]) == (40, 440, 120), (
        "a rewrite and a verdict each"
    )
    assert json.loads((tmp_path / "rephrase" / "usage.json").read_text()) == summary
    read_back = [problem.question for _, problem in read_source("rephrase", run_dir=tmp_path)]
    assert read_back == [row["question"] for row in got]
    asked = rewriting(server)
    assert len(asked) == 20
    assert all(message.startswith(BEFORE) and message.endswith(AFTER) for message in asked)
    assert summary["decided_by"] == {"verifier": 20}
    assert rows(tmp_path, "rejected") == []


def test_the_same_command_again_asks_nothing(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        before = rows(tmp_path)
        run(config(server), tmp_path)
    assert len(server.bodies) == 40
    assert rows(tmp_path) == before


@pytest.mark.parametrize("changed", [{"temperature": 0.5}, {"model": "n"}, {"max_completion_length": 99}])
def test_another_model_or_sampling_asks_again(changed: dict[str, Any], tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        run(config(server, **changed), tmp_path)
    assert len(rewriting(server)) == 40


def test_more_rows_ask_only_for_the_new_ones(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        run(config(server, "arithmetic-forum:train:25:1"), tmp_path)
    assert len(rewriting(server)) == len(rows(tmp_path)) == 25
    assert len(server.bodies) == 50


def test_the_same_question_is_asked_once_and_answered_everywhere(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server, "arithmetic-forum:train:5:1", "arithmetic-forum:train:5:1"), tmp_path)
    got = rows(tmp_path)
    assert len(rewriting(server)) == 5
    assert len(server.bodies) == 10
    assert got[:5] == got[5:]


def test_all_columns_of_a_verl_file_are_kept(tmp_path: Path) -> None:
    post, clean = next(iter(CLEAN.items()))
    row = {
        "data_source": "forum",
        "prompt": [{"content": "Be brief.", "role": "system"}, {"content": post, "role": "user"}],
        "target": [{"content": "<think>\nhm\n</think>\n$\\boxed{1}$", "role": "assistant"}],
        "reward_model": {"ground_truth": "1", "style": "rule"},
        "extra_info": {"index": 3, "split": "train"},
        "difficulty": 0.5,
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    with ScriptedServer(cleaner) as server:
        run(config(server, str(tmp_path / "in.parquet")), tmp_path)
    before, after = pq.read_table(tmp_path / "in.parquet"), pq.read_table(tmp_path / "rephrase" / "questions.parquet")
    assert after.schema.names == [*before.schema.names, "id", "original_question", "rephrase"]
    assert before.drop_columns("prompt").equals(
        after.select([name for name in before.schema.names if name != "prompt"])
    )
    assert after["prompt"].to_pylist() == [
        [{"content": "Be brief.", "role": "system"}, {"content": clean, "role": "user"}]
    ]
    assert after["original_question"].to_pylist() == [post]
    assert after["rephrase"].to_pylist()[0]["verdict"] == "accepted"
    assert not (tmp_path / "rephrase" / "questions.jsonl").exists()
    ((_, problem),) = read_source("rephrase", run_dir=tmp_path)
    assert (problem.id, problem.question, problem.answer) == ("train-3", clean, "1")
    assert problem.response == "hm\n</think>\n$\\boxed{1}$"


def test_a_changed_number_is_asked_again_more_strictly(tmp_path: Path) -> None:
    with ScriptedServer(lambda n, m: (cleaner if m.endswith(STRICTER) else spoiler)(n, m)) as server:
        summary = run(config(server), tmp_path)
    assert len(rewriting(server)) == 40
    assert len(server.bodies) == 60, "rules refuse the first rewrites, the verifier judges the second ones"
    assert summary["verdicts"] == {"accepted": 20}
    assert [row["question"] for row in rows(tmp_path)] == list(CLEAN.values())[:20]
    asked = {row["prompt_hash"] for row in rows(tmp_path, "answers") if row["to"] == "rewriter"}
    assert len(asked) == 2
    assert {row["rephrase"]["prompt_hash"] for row in rows(tmp_path)} < asked


@pytest.mark.parametrize(("second", "requests"), [(True, 40), (False, 20)])
def test_a_changed_number_keeps_the_original(second: bool, requests: int, tmp_path: Path) -> None:
    with ScriptedServer(spoiler) as server:
        summary = run(config(server, second_attempt=second), tmp_path)
    got, rejected = rows(tmp_path), rows(tmp_path, "rejected")
    assert len(server.bodies) == requests
    assert summary["verdicts"] == {"kept_original": 20}
    assert all(row["question"] == row["original_question"] for row in got)
    assert [row["id"] for row in rejected] == [row["id"] for row in got]
    assert all(row["reason"].startswith("new number") for row in rejected)
    assert all(row["answer"] != row["original_question"] for row in rejected)


def test_a_cut_answer_and_a_refused_question_keep_the_original(tmp_path: Path) -> None:
    posts = list(CLEAN)[:20]
    special = {posts[3]: Reply("What is", finish="length"), posts[7]: Reply("no", 400)}
    with ScriptedServer(lambda n, m: special.get(post_in(m)) or cleaner(n, m)) as server:
        summary = run(config(server), tmp_path)
    got = rows(tmp_path)
    assert [got[3]["question"], got[7]["question"]] == [posts[3], posts[7]]
    assert [got[3]["rephrase"]["reason"], got[7]["rephrase"]["reason"]] == ["truncated", "no answer: 400: no"]
    assert summary["verdicts"] == {"accepted": 18, "kept_original": 2}
    assert summary["reasons"] == {"truncated": 1, "no answer": 1}


def test_a_post_without_a_problem_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"question": "Great community, thank you all!"}\n{"question": "Hi! What is 3+4? Thanks"}\n')
    none = Reply("There is no math problem in this post.")
    with ScriptedServer(
        lambda n, m: judging(n, m) if m.startswith(PROMPT) else Reply("What is 3+4?") if "3+4" in m else none
    ) as server:
        summary = run(config(server, str(source)), tmp_path)
    assert [row["question"] for row in rows(tmp_path)] == ["What is 3+4?"]
    assert summary["verdicts"] == {"rejected": 1, "accepted": 1}
    assert [row["verdict"] for row in rows(tmp_path, "rejected")] == ["rejected"]


def test_bad_rows_are_skipped_and_reported(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"question": 5}\n{"question": "Hi! What is 3+4? Thanks"}\n')
    with ScriptedServer(lambda n, m: judging(n, m) if m.startswith(PROMPT) else Reply("What is 3+4?")) as server:
        settings = config(server, str(source))
        settings = settings.model_copy(update={"data": Data(train=(str(source),), on_bad_row="skip")})
        summary = run(settings, tmp_path)
    assert len(rows(tmp_path)) == len(summary["skipped_rows"]) == 1


def test_faults_are_overcome_and_counted(tmp_path: Path) -> None:
    faults = {0: Reply("busy", 503), 3: Reply("oops", 500), 5: Reply(drop=True), 8: Reply(""), 9: Reply("later", 429)}
    with ScriptedServer(lambda n, m: faults.get(n) or cleaner(n, m)) as server:
        summary = run(config(server), tmp_path)
    assert summary["verdicts"] == {"accepted": 20}
    assert summary["faults"] == {"503": 1, "500": 1, "connection": 1, "empty": 1, "429": 1}


def test_an_endpoint_that_answers_nothing_stops_and_leaves_no_result(tmp_path: Path) -> None:
    with ScriptedServer(lambda *_: Reply("max_tokens too large", 400)) as server, pytest.raises(CurioError) as error:
        run(config(server, "arithmetic-forum:train:5:1"), tmp_path)
    assert error.value.exit_code == 3
    assert "max_tokens too large" in str(error.value)
    assert not (tmp_path / "rephrase" / "questions.jsonl").exists()


def test_work_is_kept_when_the_key_is_refused_later(tmp_path: Path) -> None:
    revoked = Reply("revoked", 401)
    with (
        ScriptedServer(lambda n, m: cleaner(n, m) if n < 12 else revoked) as server,
        pytest.raises(CurioError, match="401"),
    ):
        run(config(server, concurrency=2), tmp_path)
    kept = len(rows(tmp_path, "answers"))
    assert 10 <= kept <= 12
    with ScriptedServer(cleaner) as server:
        run(config(server, concurrency=2), tmp_path)
    assert len(server.bodies) == 40 - kept
    assert len(rows(tmp_path)) == 20


def test_this_stages_result_is_no_source_for_it(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server, pytest.raises(CurioError, match=r"rephrase\.data"):
        run(config(server, "rephrase", "arithmetic:train:5"), tmp_path)


def start(settings: Config, folder: Path, **environment: str) -> subprocess.Popen[str]:
    stage = StageDir(folder / "rephrase")
    write_json(stage.config_file, settings.model_dump(mode="json"))
    command = [sys.executable, "-m", "curiosft_cli.stages.rephrase.run", str(stage.path)]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_answers(folder: Path, count: int, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while len(rows(folder, "answers")) < count:
        assert time.monotonic() < deadline, "no answers"
        time.sleep(0.02)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stage_asks_again_only_for_what_was_in_flight(end: signal.Signals, tmp_path: Path) -> None:
    """The endpoint counts: no question whose answer was saved is asked again."""
    in_flight = 4
    with ScriptedServer(lambda n, m: Reply(cleaner(n, m).text, delay_s=0.05)) as server:
        settings = config(server, "arithmetic-forum:train:200:1", concurrency=in_flight)
        process = start(settings, tmp_path)
        wait_for_answers(tmp_path, 20)
        process.send_signal(end)
        process.communicate(timeout=120)
        assert process.returncode == (-end if end == signal.SIGKILL else 75)
        saved, asked = len(rows(tmp_path, "answers")), len(server.bodies)
        assert 20 <= saved < 400
        assert saved <= asked <= saved + in_flight
        with (tmp_path / "rephrase" / "answers.jsonl").open("a") as file:
            file.write('{"key": "torn')
        process = start(settings, tmp_path)
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0, out
        assert len(server.bodies) == asked + 400 - saved, "200 rewrites and 200 verdicts"
    assert [row["question"] for row in rows(tmp_path)] == list(CLEAN.values())
    assert StageDir(tmp_path / "rephrase").status()["state"] == "complete"


def test_the_key_is_in_no_file_and_in_no_output(tmp_path: Path) -> None:
    secret = "sk-4f9a0c-do-not-store"
    over = Reply(f"{secret} is over its limit", 429)
    with ScriptedServer(lambda n, m: cleaner(n, m) if n else over) as server:
        process = start(config(server), tmp_path, **{KEY: secret})
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        assert server.headers[0]["Authorization"] == f"Bearer {secret}"
    with ScriptedServer(lambda *_: Reply(f"wrong key {secret}", 401)) as server:
        process = start(config(server, temperature=1.0), tmp_path, **{KEY: secret})
        refused, _ = process.communicate(timeout=120)
        assert process.returncode == 3, refused
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in out + refused
    assert "401" in StageDir(tmp_path / "rephrase").status()["error"]


def test_a_missing_key_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        process = start(config(server, base_url="https://api.example.com/v1"), tmp_path, **{KEY: ""})
        process.communicate(timeout=120)
    assert process.returncode == 3
    assert KEY in StageDir(tmp_path / "rephrase").status()["error"]


def test_without_a_verifier_what_no_rule_decides_stays_as_it_was(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        summary = run(config(server, verify="off"), tmp_path)
    assert len(server.bodies) == 20
    assert summary["verdicts"] == {"kept_original": 20}
    assert summary["decided_by"] == {"none": 20}
    assert [row["question"] for row in rows(tmp_path)] == list(CLEAN)[:20]
    assert rows(tmp_path, "rejected")[0]["differences"]


def test_what_the_verifier_refuses_is_asked_again_and_then_kept(tmp_path: Path) -> None:
    said = {"same": False, "differences": ["the last question is gone"]}

    def script(n: int, message: str) -> Reply:
        return Reply(json.dumps(said)) if message.startswith(PROMPT) else cleaner(n, message)

    with ScriptedServer(script) as server:
        summary = run(config(server), tmp_path)
    assert summary["verdicts"] == {"kept_original": 20}
    assert len(rewriting(server)) == 40
    assert len(server.bodies) == 60, "the second rewrites are the first ones: their verdicts are known"
    record = rows(tmp_path)[0]["rephrase"]
    assert (record["decided_by"], record["differences"]) == ("verifier", said["differences"])
    assert record["reason"] == "not the same problem: the last question is gone"


def test_a_verdict_that_cannot_be_read_keeps_the_original_and_is_counted(tmp_path: Path) -> None:
    with ScriptedServer(lambda n, m: Reply("Yes!") if m.startswith(PROMPT) else cleaner(n, m)) as server:
        summary = run(config(server), tmp_path)
    assert len(server.bodies) == 40
    assert summary["reasons"] == {"unreadable verdict": 20}
    assert [row["question"] for row in rows(tmp_path)] == list(CLEAN)[:20]


def test_another_verifier_judges_again_and_rewrites_are_not_paid_twice(tmp_path: Path) -> None:
    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        run(config(server, verify_model="judge"), tmp_path)
        run(config(server, verify_model="judge"), tmp_path)
    assert [body["model"] for body in server.bodies[40:]] == ["judge"] * 20
    assert len(server.bodies) == 60


def test_a_verdict_that_failed_is_asked_for_again(tmp_path: Path) -> None:
    with ScriptedServer(lambda n, m: Reply("no", 400) if m.startswith(PROMPT) and n < 30 else cleaner(n, m)) as server:
        summary = run(config(server, concurrency=1), tmp_path)
        failed = summary["reasons"]["no verdict"]
        assert failed
        assert summary["verdicts"] == {"accepted": 20 - failed, "kept_original": failed}
        summary = run(config(server, concurrency=1), tmp_path)
    assert summary["verdicts"] == {"accepted": 20}
    assert len(server.bodies) == 40 + failed


def test_a_label_goes_without_a_verifier(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"question": "Задача 5. Сколько будет 3+4?"}) + "\n")
    with ScriptedServer(lambda *_: Reply("Сколько будет 3+4?")) as server:
        summary = run(config(server, str(source)), tmp_path)
    assert len(server.bodies) == 1
    assert summary["decided_by"] == {"rule only label removed": 1}
    assert rows(tmp_path)[0]["question"] == "Сколько будет 3+4?"


def test_a_changed_rule_judges_saved_answers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curiosft_cli.stages.rephrase import answer_log

    with ScriptedServer(cleaner) as server:
        run(config(server), tmp_path)
        monkeypatch.setattr(answer_log, "judge_version", lambda: "newer")
        monkeypatch.setattr(answer_log, "judge_by_rules", lambda *_: Judgement("accepted", "ok", "rule new"))
        summary = run(config(server), tmp_path)
    assert len(server.bodies) == 40
    assert summary["decided_by"] == {"rule new": 20}
