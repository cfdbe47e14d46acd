"""`curiosft rephrase CONFIG --judge PAIRS --out OUT`: judge rewrites that were made elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from curiosft_cli.data.files import BadRow, read_rows
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.rephrase.answer_log import RewriteLog
from curiosft_cli.stages.rephrase.ask import Progress, ask_all, endpoint
from curiosft_cli.stages.rephrase.judge.rules import Judgement, judge_by_rules, tidy
from curiosft_cli.stages.rephrase.output import in_one_step
from curiosft_cli.stages.rephrase.run import open_log

COLUMNS = ("id", "post", "rewrite")


class Rewritten(NamedTuple):
    """A post and a rewrite of it."""

    id: str | int
    post: str
    rewrite: str


def judge_pairs(config: Config, source: Path | None, out: Path | None) -> str:
    """Write a verdict on every row of `source` to `out`; returns the line to print.

    With `rephrase.verify = "off"` the rules judge alone: nothing is asked, and no run folder is made.

    Raises:
        CurioError: a row is no pair (exit code 2); the endpoint or the budget fails, as in the stage.
    """
    if source is None or out is None:
        raise CurioError("--judge and --out go together", "Give the rewrites with --judge and the result with --out.")
    pairs = read_pairs(source)
    judgements = [judge_by_rules(pair.post, tidy(pair.rewrite)) for pair in pairs]
    if config.rephrase.verify == "model":
        open_pairs = [pair for pair, known in zip(pairs, judgements, strict=True) if known.outcome == "undecided"]
        verdict = ask_verifier(config, open_pairs)
        judgements = [
            verdict(pair) if known.outcome == "undecided" else known
            for pair, known in zip(pairs, judgements, strict=True)
        ]
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
        values = [row.get(column) for column in COLUMNS]
        for column, value, kinds in zip(COLUMNS, values, (str | int, str, str), strict=True):
            if not isinstance(value, kinds):
                raise CurioError(f"{source}, row {number}: {column} is {json.dumps(value)[:60]}", advice)
        pairs.append(Rewritten(*values))
    return pairs


def ask_verifier(config: Config, pairs: list[Rewritten]) -> Callable[[Rewritten], Judgement]:
    """Ask about each pair that was not asked about before; returns what was said of a pair.

    Answers, costs and limits are those of the run's rephrase stage.
    """
    stage = RunDir(Path(config.run.root) / config.run.name).stage("rephrase")
    with open_log(config, stage) as log:
        todo = [pair for pair in pairs if log.verdict_request(pair.post, tidy(pair.rewrite))]
        if todo:
            _ask(config, stage, log, todo)
        said = {pair: log.verdict(pair.post, tidy(pair.rewrite)) for pair in pairs}
    return lambda pair: said[pair]


def _ask(config: Config, stage: StageDir, log: RewriteLog, todo: list[Rewritten]) -> None:
    stage.path.mkdir(parents=True, exist_ok=True)
    console = Console(stage.log_file)
    progress: Progress = console.progress
    try:
        with endpoint(config, stage) as base_url:
            work = ask_all(
                config.rephrase,
                base_url,
                iter(todo),
                len(todo),
                log,
                lambda pair: log.verdict_request(pair.post, tidy(pair.rewrite)),
                progress,
            )
            _, stop = asyncio.run(work)
    finally:
        console.close()
    if stop:
        raise stop
