"""Open a finished clean-up again: ask once more for what was refused, or apply what a person decided.

Both append to answers.jsonl, and the stage then runs as usual. So a killed command continues, and `--fresh` keeps both.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from curiosft_cli.data.files import BadRow, FileRow, read_rows
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.lock import locked
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir, StageDir, opened
from curiosft_cli.run.sections import Config
from curiosft_cli.run.text import shortened
from curiosft_cli.stages.rephrase.answer_log import RewriteLog, digest
from curiosft_cli.stages.rephrase.run import open_log, read_questions

VERDICTS = ("accepted", "kept_original", "rejected")
TEXTS = ("original_question", "verdict", "question")


def reopen(config: Config, decisions: Path | None, *, retry_refused: bool) -> None:
    """Apply these decisions, if there are any; then drop the refused answers, if that is wanted."""
    if decisions:
        apply_decisions(config, decisions)
    if retry_refused:
        drop_refused(config)


def drop_refused(config: Config) -> None:
    """Drop the refused answers of a finished clean-up. An unfinished one is left as it is: it continues.

    Raises:
        CurioError: the stage was made with other settings, or another command works in its folder.
    """
    with reopened(config) as (stage, log):
        if not stage.is_complete():
            Console().say("rephrase: not complete yet, so it continues, and nothing is dropped")
            return
        count = log.ask_again({problem.question for *_, problem in read_questions(config, stage, [])})
        stage.set_status("interrupted")
        Console().say(f"rephrase: {count} questions are asked again")


def apply_decisions(config: Config, file: Path) -> None:
    """Save every decision of a file that the review page exported.

    Raises:
        CurioError: a row is no decision about a question of this run (then none is saved), or see `drop_refused`.
    """
    decisions = read_decisions(file)
    with reopened(config) as (stage, log):
        known = {digest(problem.question) for *_, problem in read_questions(config, stage, [])}
        for number, row in enumerate(decisions, start=1):
            if digest(row["original_question"]) not in known:
                raise CurioError(
                    f"{file}, row {number}: no question of this run is {shortened(row['original_question'])}",
                    "Give the decisions that the page of this run exported.",
                )
        if stage.is_complete():  # before the first is saved: a killed command must not leave old results complete
            stage.set_status("interrupted")
        for row in decisions:
            log.save_by_hand(*(row[name] for name in TEXTS))
    Console().say(f"rephrase: {len(decisions)} decisions from {file}")


@contextmanager
def reopened(config: Config) -> Generator[tuple[StageDir, RewriteLog]]:
    """The stage's folder and its answers."""
    run = RunDir(Path(config.run.root) / config.run.name)
    with ExitStack() as held:
        stage, complete = held.enter_context(opened(run, "rephrase", config))
        if complete:  # then `opened` does not lock it
            held.enter_context(locked(stage.path))
        yield stage, held.enter_context(open_log(config, stage))


def read_decisions(file: Path) -> list[FileRow]:
    """The rows of a file of decisions.

    Raises:
        CurioError: there is no such file, or a row is something else.
    """
    advice = f"Every row has the texts {', '.join(TEXTS)}; verdict is one of {', '.join(VERDICTS)}."
    rows = []
    for number, row in read_rows(file):
        if isinstance(row, BadRow):
            raise CurioError(f"{file}, row {number}: {row}", advice)
        for name in TEXTS:
            if not isinstance(row.get(name), str):
                raise CurioError(f"{file}, row {number}: {name} is {shortened(row.get(name))}", advice)
        if row["verdict"] not in VERDICTS:
            raise CurioError(f"{file}, row {number}: verdict is {shortened(row['verdict'])}", advice)
        if bool(row["question"].strip()) != (row["verdict"] == "accepted"):
            wrong = "is empty" if row["verdict"] == "accepted" else f"is given, but the verdict is {row['verdict']}"
            raise CurioError(f"{file}, row {number}: question {wrong}", "Only an accepted row has a question.")
        rows.append(row)
    return rows
