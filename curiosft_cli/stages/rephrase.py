"""Clean the questions of a data set with a chat model and the paper's Table 8 prompt.

    read the questions
    ask for each, many at a time             -> answers.jsonl, appended and flushed as each finishes
    judge; for what is not accepted,
    ask once more, stricter                  -> answers.jsonl
    write questions.jsonl in input order, rejected.jsonl, usage.json

A restart asks only for what answers.jsonl lacks: a killed process loses no more than what was in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX, JsonLines, write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.datafiles import Row
from curiosft_cli.tasks.prompts import rephrase_message
from curiosft_cli.tasks.records import Problem
from curiosft_cli.tasks.rewrite_log import ATTEMPTS, Attempt, Decision, RewriteLog
from curiosft_cli.tasks.rewrites import flags, longest_rewrite
from curiosft_cli.tasks.sources import read_pairs, with_question

if TYPE_CHECKING:
    from curiosft_cli.engine.chat import ChatClient

LOCAL = "local"
LOCAL_CONTEXT = 4096
Progress = Callable[[int, int, str], None]


def run(config: Config, stage: StageDir) -> None:
    """Clean every question of `rephrase.data` (or `data.train`)."""
    console = Console(stage.log_file)
    try:
        summary = rephrase(config, stage, console.progress)
        for line in summary["skipped_rows"]:
            console.say(f"rephrase: left out {line}")
        counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
        console.say(f"rephrase: {summary['questions']} questions: {counts}")
    finally:
        console.close()


def rephrase(config: Config, stage: StageDir, progress: Progress) -> dict[str, Any]:
    """Ask what is missing, decide on every question, write the three result files; returns usage.json's content.

    Raises:
        CurioError: a row cannot be read; the endpoint refuses the key, is down, or answers nothing.
    """
    started = time.monotonic()
    settings = config.rephrase
    sampling = (settings.temperature, settings.max_completion_length)
    skipped: list[str] = []
    faults: Counter[str] = Counter()
    with RewriteLog(
        stage.path / "answers.jsonl", model_name(config), sampling, second_attempt=settings.second_attempt
    ) as log:
        questions = dict.fromkeys(problem.question for _, problem in read_questions(config, stage, skipped))
        with ExitStack() as stack:
            base_url = ""
            for attempt in ATTEMPTS:
                missing = still_to_ask(attempt, questions, log, progress)
                if missing:
                    base_url = base_url or stack.enter_context(endpoint(config, stage))
                    faults += asyncio.run(ask_all(config, base_url, attempt, missing, log, progress))
        summary = write_results(config, stage, log)
    summary |= {"faults": dict(faults), "skipped_rows": skipped, "seconds": time.monotonic() - started}
    write_json(stage.path / "usage.json", summary)
    return summary


def read_questions(config: Config, stage: StageDir, skipped: list[str]) -> Iterator[tuple[Row, Problem]]:
    """The rows to clean, as they were found, and their problems.

    Raises:
        CurioError: a row cannot be read, or the source is this stage's own result.
    """
    sources = config.rephrase.data or config.data.train
    if "rephrase" in sources:
        raise CurioError(
            "the questions to clean are this run's cleaned questions", "Set rephrase.data to where they come from."
        )
    return read_pairs(config.data, skipped, run_dir=stage.path.parent, sources=sources)


def still_to_ask(attempt: Attempt, questions: Collection[str], log: RewriteLog, progress: Progress) -> list[str]:
    """The questions without an answer to this way of asking; for the second way, all first answers are judged."""
    missing: list[str] = []
    for done, question in enumerate(questions, start=1):
        if log.wants(attempt, question):
            missing.append(question)
        if attempt is not ATTEMPTS[0]:
            progress(done, len(questions), "rephrase: checking answers")
    return missing


async def ask_all(
    config: Config, base_url: str, attempt: Attempt, questions: list[str], log: RewriteLog, progress: Progress
) -> Counter[str]:
    """Ask for these questions in this way, saving each answer as it comes; returns the faults, by kind.

    Raises:
        CurioError: exit code 3 when the endpoint refuses, is down, or answered no question at all.
    """
    from curiosft_cli.engine.chat import ChatClient, in_parallel

    settings = config.rephrase
    done = 0
    client = ChatClient(
        base_url,
        LOCAL if settings.base_url == LOCAL else settings.model,
        settings.api_key_env,
        concurrency=settings.concurrency,
        temperature=settings.temperature,
        max_tokens=settings.max_completion_length,
        timeout_s=settings.timeout_s,
        max_attempts=settings.max_attempts,
        answered=log.totals()["answers"],
    )
    async with client:

        async def one(question: str) -> None:
            nonlocal done
            log.save(attempt, question, await ask(client, attempt, question))
            done += 1
            progress(done, len(questions), f"rephrase: {attempt.name}")

        await in_parallel(one, questions, min(settings.concurrency, len(questions)))
    if not client.answered:
        failure = log.get(attempt, questions[0]) or {}
        raise CurioError(
            f"{base_url} answered none of {len(questions)} questions: {failure.get('error')}",
            "Check rephrase.model and rephrase.max_completion_length.",
            MISSING,
        )
    return client.faults


async def ask(client: ChatClient, attempt: Attempt, question: str) -> Row:
    """One answer, or why there is none, as a row of answers.jsonl."""
    from curiosft_cli.engine.chat import QuestionFailed

    try:
        answer = asdict(await client.ask(rephrase_message(question) + attempt.addition, longest_rewrite(question)))
    except QuestionFailed as failure:
        return {"error": str(failure)}
    return {"answer": answer.pop("text"), **answer}


@contextmanager
def endpoint(config: Config, stage: StageDir) -> Generator[str]:
    """Base URL to ask; a local server lives as long as the context."""
    if config.rephrase.base_url != LOCAL:
        yield config.rephrase.base_url
        return
    from curiosft_cli.engine.server import serve
    from curiosft_cli.train.load import load_config

    context = getattr(load_config(config.model.path, config.model), "max_position_embeddings", None) or LOCAL_CONTEXT
    with serve(
        config.model.path,
        name=LOCAL,
        log_file=stage.path / "server.log",
        max_model_len=min(context, LOCAL_CONTEXT),
    ) as base_url:
        yield base_url


def write_results(config: Config, stage: StageDir, log: RewriteLog) -> dict[str, Any]:
    """Write questions.jsonl and rejected.jsonl; returns the counts."""
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with in_one_step(stage.path / "questions.jsonl") as kept, in_one_step(stage.path / "rejected.jsonl") as rejected:
        for row, problem in read_questions(config, stage, []):
            decision = log.decide(problem.question)
            outcome, reason = decision.verdict.outcome, decision.verdict.reason
            verdicts[outcome] += 1
            if outcome != "rejected":
                kept.append(cleaned_row(config, row, problem, decision))
            if outcome != "accepted":
                reasons[reason.partition(":")[0]] += 1
                answer = decision.answer.get("answer", "")
                rejected.append(
                    {
                        "id": problem.id,
                        "verdict": outcome,
                        "reason": reason,
                        "original_question": problem.question,
                        "answer": answer,
                    }
                )
    return {"questions": verdicts.total(), "verdicts": dict(verdicts), "reasons": dict(reasons), **log.totals()}


def cleaned_row(config: Config, row: Row, problem: Problem, decision: Decision) -> Row:
    """The row as it was found with the new question in its place, the original beside it, and how it came about."""
    return {
        "id": problem.id,
        **with_question(row, decision.question),
        "original_question": problem.question,
        "rephrase": {
            "model": model_name(config),
            "prompt_hash": decision.attempt.prompt_hash,
            "time": decision.answer["time"],
            "tokens": decision.answer.get("completion_tokens", 0),
            "verdict": decision.verdict.outcome,
            "reason": decision.verdict.reason,
            "flags": flags(decision.question),
        },
    }


def model_name(config: Config) -> str:
    """The model that answers: the endpoint's, or the run's own behind a local server."""
    return config.model.path if config.rephrase.base_url == LOCAL else config.rephrase.model


@contextmanager
def in_one_step(path: Path) -> Generator[JsonLines]:
    """A JSONL file that appears whole, when the context ends well."""
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    partial.unlink(missing_ok=True)
    with JsonLines(partial) as file:
        yield file
    partial.replace(path)


if __name__ == "__main__":
    run_stage(run)
