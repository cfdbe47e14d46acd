"""Clean the questions of a data set with a chat model and the paper's Table 8 prompt.

    read all rows; which questions are still to be asked?
    for each different one, many at a time:
        ask for a rewrite, judge it by rules        -> answers.jsonl, appended and flushed
        if no rule decides, ask the verifier        -> answers.jsonl
        if it is refused, ask again, stricter       -> answers.jsonl
    write the questions in the layout and order of the input, rejected.jsonl, usage.json

A restart asks only for what answers.jsonl lacks: a killed process loses no more than what was in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

from curiosft_cli.data.files import FileRow
from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import read_numbered
from curiosft_cli.engine.endpoint.budget import OutOfBudget
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import JsonLines, write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.rephrase.answer_log import Decision, RewriteLog, digest
from curiosft_cli.stages.rephrase.ask import LOCAL, Progress, ask_all, endpoint, verifier
from curiosft_cli.stages.rephrase.demonstration import DEMONSTRATION
from curiosft_cli.stages.rephrase.flags import flags
from curiosft_cli.stages.rephrase.output import Cleaned, in_one_step, refuse_cleaned, write_cleaned


@dataclass
class Survey:
    """What the data holds, before anything is asked.

    Attributes:
        rows: rows that can be read.
        questions: different questions among them.
        missing: digests of those that are still to be asked.
        at_hand: the first of these themselves.
        skipped: one line for each row that cannot be read, where such rows are to be left out.
    """

    rows: int = 0
    questions: int = 0
    missing: set[bytes] = field(default_factory=set)
    at_hand: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def run(config: Config, stage: StageDir) -> None:
    """Clean every question of `rephrase.data` (or `data.train`)."""
    console = Console(stage.log_file)
    try:
        if config.rephrase.base_url == DEMONSTRATION:
            console.say("rephrase: a demonstration: a script answers in place of a model, for the built-in posts only")
        summary = rephrase(config, stage, console.progress)
        for line in summary["skipped_rows"]:
            console.say(f"rephrase: left out {line}")
        counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
        console.say(f"rephrase: {summary['rows']} questions: {counts}; ${summary['cost_usd']:.4f}")
        for line in not_used(summary, stage):
            console.say(f"rephrase: {line}")
    finally:
        console.close()


def not_used(summary: dict[str, Any], stage: StageDir, shown: int = 5, longest: int = 100) -> Iterator[str]:
    """The commonest reasons why answers were not used, each with an example, and what to do about them."""
    reasons = Counter(summary["reasons"])
    for reason, count in reasons.most_common(shown):
        yield f"{count} not used: {reason} ({shorten(summary['examples'][reason], longest)})"
    if more := reasons.total() - sum(count for _, count in reasons.most_common(shown)):
        yield f"{more} not used for other reasons"
    if reasons:
        yield f"`curiosft review {stage.path.parent}` shows them; --retry-refused asks for them again"


def rephrase(config: Config, stage: StageDir, progress: Progress) -> dict[str, Any]:
    """Ask what is missing, decide on every question, write the result files; returns usage.json's content.

    Raises:
        CurioError: a row cannot be read; the endpoint refuses the key, is down, or answers nothing (exit code 3); the
            budget is spent (exit code 4). Finished answers are kept.
    """
    started = time.monotonic()
    faults: Counter[str] = Counter()
    stop: OutOfBudget | None = None
    with open_log(config, stage) as log:
        survey = look_through(config, stage, log, progress)
        if survey.missing:
            with endpoint(config, stage) as base_url:
                questions, total = unanswered(config, stage, survey), len(survey.missing)
                work = ask_all(config.rephrase, base_url, questions, total, log, log.next_request, progress)
                faults, stop = asyncio.run(work)
        results = {} if stop else write_results(config, stage, log, progress)
        usage = {
            "rows": survey.rows,
            "questions": survey.questions,
            **results,
            **log.totals,
            "cost_usd": round(log.cost_usd, 6),
            "faults": dict(faults),
            "skipped_rows": survey.skipped,
            "asked_now": len(survey.missing),
            "seconds": round(time.monotonic() - started, 3),
        }
    write_json(stage.path / "usage.json", usage)
    if stop:
        raise stop
    return usage


def open_log(config: Config, stage: StageDir, *, read_only: bool = False) -> RewriteLog:
    """The saved answers of this model and sampling."""
    settings, is_local = config.rephrase, config.rephrase.base_url == LOCAL
    return RewriteLog(
        stage.path / "answers.jsonl",
        model_name(config),
        (settings.temperature, settings.max_completion_length),
        second_attempt=settings.second_attempt,
        verifier=config.model.path if is_local and settings.verify == "model" else verifier(settings),
        read_only=read_only,
    )


def questions_to_clean(config: Config) -> tuple[str, ...]:
    """`rephrase.data`; without it `data.train`, or the raw questions where that names cleaned ones only."""
    trained = config.data.train
    return config.rephrase.data or (("raw",) if set(trained) <= {"authors", "rephrase"} else trained)


def read_questions(config: Config, stage: StageDir, skipped: list[str]) -> Iterator[tuple[int, int, FileRow, Problem]]:
    """Which source, row number, row and problem of everything to clean.

    Raises:
        CurioError: a row cannot be read, or the source is this stage's own result or was cleaned before.
    """
    sources = questions_to_clean(config)
    if "rephrase" in sources:
        raise CurioError(
            "the questions to clean are this run's cleaned questions", "Set rephrase.data to where they come from."
        )
    for found in read_numbered(config.data, skipped, run_dir=stage.path.parent, sources=sources):
        refuse_cleaned(found[2], sources[found[0]])
        yield found


def look_through(config: Config, stage: StageDir, log: RewriteLog, progress: Progress, at_hand: int = 1000) -> Survey:
    """Read every row once, so that a bad one is found before anything is paid; judge saved answers where needed.

    Args:
        config: which rows.
        stage: where this run is.
        log: the saved answers.
        progress: called for every row.
        at_hand: missing questions held in memory, so that a few need no second reading.
    """
    survey = Survey()
    seen: set[bytes] = set()
    for _, _, _, problem in read_questions(config, stage, survey.skipped):
        survey.rows += 1
        key = digest(problem.question)
        if key not in seen:
            seen.add(key)
            if log.wants(problem.question):
                survey.missing.add(key)
                if len(survey.at_hand) < at_hand:
                    survey.at_hand.append(problem.question)
        progress(survey.rows, 0, "rephrase: reading")
    survey.questions = len(seen)
    return survey


def unanswered(config: Config, stage: StageDir, survey: Survey) -> Iterator[str]:
    """The missing questions, each once; beyond those at hand they are read again one by one, to bound the memory."""
    yield from survey.at_hand
    todo = survey.missing.difference(map(digest, survey.at_hand))
    for _, _, _, problem in read_questions(config, stage, []) if todo else ():
        if (key := digest(problem.question)) in todo:
            todo.discard(key)
            yield problem.question
        if not todo:
            return


def write_results(config: Config, stage: StageDir, log: RewriteLog, progress: Progress) -> dict[str, Any]:
    """Write the cleaned questions and rejected.jsonl; returns the counts."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("verdicts", "decided_by", "reasons", "flags")}
    examples: dict[str, str] = {}

    def cleaned(rejected: JsonLines) -> Iterator[Cleaned]:
        rows = 0
        for source, number, row, problem in read_questions(config, stage, []):
            decision = log.decide(problem.question)
            record = record_of(config, decision, problem.question)
            counts["verdicts"][record["verdict"]] += 1
            counts["decided_by"][record["decided_by"]] += 1
            counts["flags"].update(record["flags"])
            progress(rows := rows + 1, 0, "rephrase: writing")
            if record["verdict"] != "accepted":
                reason, _, detail = record["reason"].partition(": ")
                counts["reasons"][reason] += 1
                examples.setdefault(reason, f"{problem.id}: {detail or problem.question}")
                refused = {name: record[name] for name in ("verdict", "reason", "decided_by", "differences", "flags")}
                answer = decision.answer.get("answer", "")
                rejected.append({"id": problem.id, **refused, "original_question": problem.question, "answer": answer})
            if record["verdict"] != "rejected":
                yield Cleaned(source, number, problem.id, row, decision.question, problem.question, record)

    with in_one_step(stage.path / "rejected.jsonl") as rejected:
        write_cleaned(stage.path, questions_to_clean(config), cleaned(rejected))
    return {**{name: dict(counted) for name, counted in counts.items()}, "examples": examples}


def record_of(config: Config, decision: Decision, post: str) -> FileRow:
    """How a question came about."""
    return {
        "model": model_name(config),
        "prompt_hash": decision.attempt.prompt_hash,
        "time": decision.answer.get("time"),
        "tokens": decision.answer.get("completion_tokens", 0),
        "verdict": decision.verdict,
        "reason": decision.judgement.reason,
        "decided_by": decision.judgement.decided_by,
        "differences": list(decision.judgement.differences),
        "flags": flags(decision.question, post),
    }


def model_name(config: Config) -> str:
    """The model that answers: the endpoint's, or the run's own behind a local server."""
    return config.model.path if config.rephrase.base_url == LOCAL else config.rephrase.model


if __name__ == "__main__":
    run_stage(run)
