"""The score of a benchmark without the questions that the training data has too, as `data check` found them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.metrics import standard_error

PERCENT = 100.0


def contaminated_ids(report: Path, benchmark: str, known: Collection[str] | None = None) -> set[str]:
    """Ids of the benchmark's questions that a report of `curiosft data check --json` lists as hits.

    Args:
        report: the file.
        benchmark: its name.
        known: ids of all its questions; an id that is not among them is refused. None does not look.

    Raises:
        CurioError: there is no such report, or it did not compare with these questions.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["contamination"]
        benchmarks, hits = found["benchmarks"], found["hits"]
    except OSError as error:
        raise CurioError(f"cannot read {report}: {error.strerror}", "Check eval.contamination.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CurioError(
            f"{report} is not a report of `curiosft data check --json` ({error})", "Check eval.contamination."
        ) from None
    if benchmark not in benchmarks:
        raise CurioError(
            f"{report} did not compare the data with {benchmark}, only with {', '.join(benchmarks) or 'nothing'}",
            f"Check the data again with check.benchmarks holding {benchmark}.",
        )
    ids = {str(hit["id"]) for hit in hits if hit["benchmark"] == benchmark}
    if known is not None and (strange := sorted(ids - set(known))):
        raise CurioError(
            f"{report} lists question {strange[0]} of {benchmark}, which this evaluation does not have",
            f"Give data check and eval the same eval.data.{benchmark}.",
        )
    return ids


def clean_numbers(rows: Iterable[Mapping[str, Any]], contaminated: Collection[str]) -> dict[str, Any]:
    """Percentages over the questions that are gradable and not contaminated; null where none is left.

    Args:
        rows: of questions.jsonl: `id`, and `answer` and `strict` as means over the samples.
        contaminated: ids to leave out.
    """
    every = list(rows)
    clean = [row for row in every if row["id"] not in contaminated and row["answer"] is not None]
    answer, strict = ([row[name] for row in clean] for name in ("answer", "strict"))
    return {
        "questions": len(clean),
        "contaminated": sum(row["id"] in contaminated for row in every),
        "avg": PERCENT * sum(answer) / len(answer) if answer else None,
        "standard_error": PERCENT * standard_error(answer) if len(answer) > 1 else None,
        "strict": PERCENT * sum(strict) / len(strict) if strict else None,
    }
