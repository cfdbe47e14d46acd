"""Grade saved responses without a model: `curiosft grade`.

    check every row              -> a bad row stops the command before anything is written
    grade in a pool of processes -> the same rows, in order, with the fields of the grade
    summarise                    -> scores with standard errors over questions, counts of reasons

If a command with `--out` was killed, the same command continues: graded rows are in a temporary file beside the output.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from curiosft_cli.data.files import FileRow
from curiosft_cli.data.records import Grade, Grader
from curiosft_cli.evaluation.fingerprint import grader_identity
from curiosft_cli.evaluation.metrics import standard_error
from curiosft_cli.evaluation.summary import PERCENT
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import PARTIAL_SUFFIX, JsonLines, drop_torn_line, json_line, read_jsonl
from curiosft_cli.run.log import Console
from curiosft_cli.run.processes import usable_cores
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.saved_responses import graded_row, read_responses

GRADERS: tuple[Grader, ...] = ("curiosft", "official")
OTHERS: tuple[Grader, ...] = ("math-verify", "string")


@dataclass
class QuestionScores:
    """Sums of scores by question: for each an id and three numbers."""

    places: dict[str, int] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))
    strict: array[float] = field(default_factory=lambda: array("d"))
    answer: array[float] = field(default_factory=lambda: array("d"))

    def add(self, id_: str, strict: float, answer: float) -> None:
        """Count one row of this question."""
        place = self.places.setdefault(id_, len(self.rows))
        if place == len(self.rows):
            for column in (self.rows, self.strict, self.answer):
                column.append(0)
        self.rows[place] += 1
        self.strict[place] += strict
        self.answer[place] += answer

    def percent(self, score: str) -> tuple[float | None, float | None]:
        """Mean over questions of the means over rows, and its standard error; None where there are too few."""
        means = [total / rows for total, rows in zip(getattr(self, score), self.rows, strict=True)]
        mean = PERCENT * sum(means) / len(means) if means else None
        return mean, PERCENT * standard_error(means) if len(means) > 1 else None


@dataclass
class Tally:
    """Counts over all rows. Its memory grows with the questions, not with the rows."""

    rows: int = 0
    without_format: int = 0
    no_answer: int = 0
    fallback: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    questions: QuestionScores = field(default_factory=QuestionScores)
    others: Counter[str] = field(default_factory=Counter)
    disagreements: list[FileRow] = field(default_factory=list)
    disagreeing: Counter[str] = field(default_factory=Counter)

    def add(self, row: FileRow, shown: int) -> None:
        """Count one graded row."""
        self.rows += 1
        self.without_format += row["format_error"] is not None
        self.no_answer += (row["letter"] if row.get("kind") == "choice" else row["extracted"]) is None
        self.fallback += row["fallback"]
        self.reasons[row["reason"]] += 1
        self.statuses[row["status"]] += 1
        if row["answer"] is None:
            return
        self.questions.add(str(row["id"]), row["strict"], row["answer"])
        for name, score in row.get("cross_check", {}).items():
            self.others[name] += score
            if score != row["answer"]:
                self.disagreeing[f"{name} {'accepts' if score else 'refuses'}"] += 1
        if any(score != row["answer"] for score in row.get("cross_check", {}).values()):
            self.disagreeing["rows"] += 1
            if len(self.disagreements) < shown:
                columns = ("id", "gold", "extracted", "answer", "cross_check")
                self.disagreements.append({column: row[column] for column in columns})

    def summary(self, grader: Grader, cross_checked: bool) -> dict[str, Any]:
        """All numbers; shares and scores are percent. A score is the mean over questions of the mean over rows."""
        (strict, strict_error), (answer, answer_error) = map(self.questions.percent, ("strict", "answer"))
        result: dict[str, Any] = {
            "rows": self.rows,
            "questions": len(self.questions.places),
            "ungradable_rows": self.reasons["ungradable_gold"],
            "strict": strict,
            "strict_standard_error": strict_error,
            "answer": answer,
            "answer_standard_error": answer_error,
            "format": PERCENT * (1 - self.without_format / self.rows),
            "no_answer": PERCENT * self.no_answer / self.rows,
            "fallback": PERCENT * self.fallback / self.rows,
            "reasons": dict(sorted(self.reasons.items())),
            "grader_status": dict(sorted(self.statuses.items())),
            "grader": grader_identity(grader),
        }
        if cross_checked:
            graded = sum(self.questions.rows)
            ours = PERCENT * sum(self.questions.answer) / max(1, graded)
            scores = {name: PERCENT * total / graded for name, total in self.others.items()}
            result["cross_check"] = {
                "rows": graded,
                "scores": {grader: ours, **scores},
                "effect": {name: score - ours for name, score in scores.items()},
                "counts": dict(sorted(self.disagreeing.items())),
                "disagreements": self.disagreements,
            }
        return result


def grade_file(
    path: Path,
    out: Path | None,
    *,
    grader: str = "curiosft",
    cross_check: bool = False,
    as_json: bool = False,
    workers: int | None = None,
    shown: int = 40,
) -> None:
    """Grade the rows of a file. Rows go to `out` or stdout; the summary to stdout, or to stderr if rows are there.

    Args:
        path: JSONL, JSON or parquet file of saved responses.
        out: JSONL file for the rows. None prints them, or only the summary with `as_json`.
        grader: "curiosft" or "official".
        cross_check: also grade with plain Math-Verify and by equal strings, and list disagreements.
        as_json: print the summary as one JSON object.
        workers: grading processes; None is one per core.
        shown: number of disagreements to list.
    """
    if grader not in GRADERS:
        raise CurioError(f"--grader {grader} does not exist", nearest(grader, GRADERS))
    chosen: Grader = "official" if grader == "official" else "curiosft"
    if out is not None:
        _check_target(out)
    total = sum(1 for _ in read_responses(path, chosen))
    graders = (chosen, *OTHERS) if cross_check else (chosen,)
    console, tally = Console(), Tally()
    with GraderPool(workers or usable_cores()) as pool:
        rows = _graded(path, graders, pool, tally, console, total, shown)
        if out is not None:
            _write(rows, path, out, graders, tally, shown)
        else:
            _print(rows(0), quiet=as_json)
    console.close()
    summary = tally.summary(chosen, cross_check)
    text = json.dumps(summary, ensure_ascii=False) if as_json else as_text(summary)
    show(text, file=sys.stdout if as_json or out is not None else sys.stderr)


def as_text(summary: dict[str, Any]) -> str:
    """The summary as text."""
    reasons = ", ".join(f"{name} {count}" for name, count in summary["reasons"].items())
    status = ", ".join(f"{name} {count}" for name, count in summary["grader_status"].items())
    lines = [
        f"{summary['rows']} rows, {summary['questions']} questions; grader {summary['grader']['name']} "
        f"{summary['grader']['version']}",
        f"answer   {_with_error(summary, 'answer')}   right in any format",
        f"strict   {_with_error(summary, 'strict')}   right in the required format",
        f"format {summary['format']:.1f} %, no answer {summary['no_answer']:.1f} %, "
        f"from a statement instead of a box {summary['fallback']:.1f} %",
        f"reasons: {reasons}",
        f"grading: {status}",
    ]
    if summary["ungradable_rows"]:
        lines.append(f"{summary['ungradable_rows']} rows have a gold that cannot be graded; they are in no score")
    if "cross_check" in summary:
        lines += _cross_check_text(summary["cross_check"])
    return "\n".join(map(one_line, lines))


def _cross_check_text(check: dict[str, Any]) -> list[str]:
    lines = [f"cross-check over {check['rows']} rows (each row counts once):"]
    for name, score in check["scores"].items():
        effect = check["effect"].get(name)
        counts = ", ".join(
            f"{verb} {check['counts'].get(f'{name} {verb}', 0)} that we do{'' if verb == 'refuses' else ' not'}"
            for verb in ("accepts", "refuses")
        )
        lines.append(f"  {name:12} {score:6.2f} %" + ("" if effect is None else f"  {effect:+.2f}  ({counts})"))
    listed, rows = len(check["disagreements"]), check["counts"].get("rows", 0)
    lines.append(f"{rows} rows disagree" + (f", the first {listed}:" if listed < rows else ":" if rows else ""))
    for row in check["disagreements"]:
        verdicts = " ".join(f"{name}={score:.0f}" for name, score in row["cross_check"].items())
        answer = json.dumps(row["extracted"], ensure_ascii=False)
        lines.append(f"  {row['id']}: gold {row['gold']!s}  answer {answer}  ours={row['answer']:.0f} {verdicts}")
    return lines


def _graded(
    path: Path, graders: Sequence[Grader], pool: GraderPool, tally: Tally, console: Console, total: int, shown: int
) -> Callable[[int], Iterator[FileRow]]:
    """A function that streams the graded rows from row `start` on, counts them, and shows progress."""

    def rows(start: int) -> Iterator[FileRow]:
        waiting: deque[FileRow] = deque()

        def items() -> Iterator[GradeItem]:
            for row, item in islice(read_responses(path, graders[0]), start, None):
                waiting.append(row)
                yield item
                for other in graders[1:]:
                    yield GradeItem(item.completion, item.problem, item.prefilled, item.truncated, grader=other)

        grades = pool.grade_in_order(items())
        for done, grade in enumerate(grades, start=start + 1):
            row = graded_row(waiting.popleft(), grade)
            others: dict[str, Grade] = {name: next(grades) for name in graders[1:]}
            if others:
                row["cross_check"] = {name: other.answer for name, other in others.items()}
            tally.add(row, shown)
            console.progress(done, total, "rows graded")
            yield row

    return rows


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_file():  # a device would be replaced
        raise CurioError(f"--out {out} is a folder or a device", "Name a file that ends in .jsonl.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise CurioError(f"--out {out}: its folder does not exist or cannot be written", "Name another place.")


def _print(rows: Iterator[FileRow], *, quiet: bool) -> None:
    """Print the rows as JSON lines, or only grade them (`quiet`). If the reader of stdout leaves, the command ends."""
    try:
        for row in rows:
            if not quiet:
                show(json_line(row))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _write(
    rows: Callable[[int], Iterator[FileRow]], path: Path, out: Path, graders: Sequence[Grader], tally: Tally, shown: int
) -> None:
    """Write the rows to a temporary file that is named after this input and grader, then rename it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps([grader_identity(name) for name in graders]).encode())
    partial = out.with_name(f".{out.name}.{digest.hexdigest()[:12]}{PARTIAL_SUFFIX}")
    drop_torn_line(partial)
    kept = 0
    for row in read_jsonl(partial):
        tally.add(row, shown)
        kept += 1
    with JsonLines(partial) as file:
        for row in rows(kept):
            file.append(row)
    partial.replace(out)


def _with_error(summary: dict[str, Any], name: str) -> str:
    score, error = summary[name], summary[f"{name}_standard_error"]
    if score is None:
        return "-"
    return f"{score:5.1f} %" + ("" if error is None else f" ± {error:.1f}")
