"""`curiosft rephrase CONFIG --judge PAIRS --out OUT`: judge rewrites that were made elsewhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from curiosft_cli.data.files import BadRow, read_rows
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.lock import locked
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.rephrase.answer_log import Request
from curiosft_cli.stages.rephrase.ask import ask_all, endpoint
from curiosft_cli.stages.rephrase.judge.rules import Judgement, judge_by_rules, tidy
from curiosft_cli.stages.rephrase.output import in_one_step
from curiosft_cli.stages.rephrase.run import open_log

COLUMNS = {"id": (str, int), "post": str, "rewrite": str}


class Rewritten(NamedTuple):
    """A post and a tidy rewrite of it."""

    id: str | int
    post: str
    rewrite: str


Judged = tuple[Rewritten, Judgement]


def judge_pairs(config: Config, source: Path | None, out: Path | None) -> str:
    """Write a verdict on every row of `source` to `out`; returns the line to print.

    With `rephrase.verify = "off"` the rules judge alone: nothing is asked, and no run folder is made.

    Raises:
        CurioError: a row is no pair (exit code 2); the endpoint or the budget fails, as in the stage.
    """
    if source is None or out is None:
        raise CurioError("--judge and --out go together", "Give the rewrites with --judge and the result with --out.")
    pairs = read_pairs(source)
    judgements = [judge_by_rules(pair.post, pair.rewrite) for pair in pairs]
    if config.rephrase.verify == "model":
        judgements = ask_verifier(config, list(zip(pairs, judgements, strict=True)))
    with in_one_step(out) as file:
        for pair, judged in zip(pairs, judgements, strict=True):
            row = {"id": pair.id, "verdict": judged.outcome, "reason": judged.reason, "decided_by": judged.decided_by}
            file.append(row | {"differences": list(judged.differences)})
    counts = Counter(judged.outcome for judged in judgements)
    return f"{len(pairs)} rewrites: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())


def read_pairs(source: Path) -> list[Rewritten]:
    """The rows of a JSONL, JSON or parquet file with `id`, `post` and `rewrite`.

    Raises:
        CurioError: there is no such file, or a row is something else.
    """
    advice = "Every row has id, a text or a number, and the texts post and rewrite."
    pairs = []
    for number, row in read_rows(source):
        if isinstance(row, BadRow):
            raise CurioError(f"{source}, row {number}: {row}", advice)
        for column, kinds in COLUMNS.items():
            if not isinstance(row.get(column), kinds):
                raise CurioError(f"{source}, row {number}: {column} is {str(row.get(column))[:60]}", advice)
        pairs.append(Rewritten(row["id"], row["post"], tidy(row["rewrite"])))
    return pairs


def ask_verifier(config: Config, judged: list[Judged], *, about_all: bool = False) -> list[Judgement]:
    """Ask about the pairs that no rule decides, or about all; what was asked before is not asked again.

    Answers, costs and limits are those of the run's rephrase stage.

    Raises:
        CurioError: another command works in the stage's folder; the endpoint or the budget fails, as in the stage.
    """
    stage = RunDir(Path(config.run.root) / config.run.name).stage("rephrase")

    def request(one: Judged) -> Request | None:
        return log.verdict_request(one[0].post, one[0].rewrite, one[1].differences)

    with locked(stage.path), open_log(config, stage) as log:
        doubtful = [about_all or known.outcome == "undecided" for _, known in judged]
        todo = [one for one, is_doubtful in zip(judged, doubtful, strict=True) if is_doubtful and request(one)]
        if todo:
            console = Console(stage.log_file)
            try:
                with endpoint(config, stage) as base_url:
                    work = ask_all(config.rephrase, base_url, iter(todo), len(todo), log, request, console.progress)
                    _, stop = asyncio.run(work)
            finally:
                console.close()
            if stop:
                raise stop
        return [
            log.verdict(pair.post, pair.rewrite, known) if is_doubtful else known
            for (pair, known), is_doubtful in zip(judged, doubtful, strict=True)
        ]
