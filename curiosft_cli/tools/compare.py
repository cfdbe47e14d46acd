"""`curiosft compare A B [C ...]`: which result is better, and is there evidence for it? As tables and notes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from curiosft_cli.evaluation.comparison import (
    Comparison,
    Flip,
    Method,
    comparisons,
    flips,
    gate,
    other_measures,
    read_methods,
    unit,
)
from curiosft_cli.evaluation.paired import DRAWS, FEWEST_QUESTIONS, LEVEL
from curiosft_cli.evaluation.summary import PERCENT
from curiosft_cli.run.errors import GUARD, UNDECIDED, CurioError, nearest
from curiosft_cli.run.resume_policy import keys_with
from curiosft_cli.run.sections import Eval
from curiosft_cli.run.sections.base import COMPARABLE, RESUME_FREE
from curiosft_cli.tools.tables import STYLES, Style

SCORES = {"answer": "the answer-only score", "strict": "the strict reward"}
# Settings that may differ without a note, because they do not change what is measured.
UNREMARKED = frozenset((*keys_with(RESUME_FREE, Eval), *keys_with(COMPARABLE, Eval), "seed"))


def compare(
    arguments: Sequence[str],
    *,
    style: str = "text",
    strict: bool = False,
    with_flips: bool = False,
    min_difference: float = 0.0,
) -> tuple[str, list[Comparison]]:
    """Compare the methods that the arguments name with the first of them; return the text to print, and the rows.

    Args:
        arguments: see `read_methods`.
        style: "text", "markdown", "latex", "csv" or "json".
        strict: compare the strict reward, not the answer-only score.
        with_flips: also the questions that only one of two methods solves; a CSV then has these alone.
        min_difference: see `comparisons`.

    Raises:
        CurioError: fewer than two methods, or two that share no question.
    """
    if style not in (*STYLES, "json"):
        raise CurioError(f"--format {style} does not exist", nearest(style, [*STYLES, "json"]))
    if not 0 <= min_difference < PERCENT:
        raise CurioError(f"--min-difference {min_difference} is no difference of scores", "Give 0 to 100, in points.")
    methods = read_methods(arguments)
    if len(methods) < 2:
        raise CurioError(f"found one model, '{methods[0].label}', in {arguments[0]}", "Name at least two results.")
    score = "strict" if strict else "answer"
    rows = comparisons(methods, [score], min_difference=min_difference)
    more = [] if style == "csv" else comparisons(methods, other_measures(methods))
    found = [flip for other in methods[1:] for flip in flips(methods[0], other, score)] if with_flips else None
    if style == "json":
        tables = {"rows": rows, "measures": more} | ({} if found is None else {"flips": found})
        listed = {name: [_finite(vars(row)) for row in table] for name, table in tables.items()}
        return json.dumps({"score": score, **listed, "notes": remarks(methods)}, ensure_ascii=False), rows
    return _as_text(methods, score, rows, more, found, min_difference, STYLES[style], alone=style == "csv"), rows


def check_gate(rows: Sequence[Comparison], min_difference: float) -> None:
    """The gate for CI.

    Raises:
        CurioError: a method is worse (exit code 4), or the results cannot decide it (exit code 5); see `gate`.
    """
    failed, undecided = gate(rows, min_difference)
    for said, found, code in (("is worse", failed, GUARD), ("may be worse", undecided, UNDECIDED)):
        if found:
            places = "; ".join(f"{row.model} on {row.benchmark} ({_difference(row)})" for row in found)
            fix = "More questions or samples narrow the intervals." if code == UNDECIDED else ""
            raise CurioError(f"gate: {said}: {places}", fix, code)


def explanation(
    methods: Sequence[Method], rows: Sequence[Comparison], score: str, min_difference: float = 0.0
) -> list[str]:
    """The first table in sentences."""
    first = methods[0].label
    count = f"{len(rows)} comparison{'s' if len(rows) > 1 else ''}"
    lines = [
        f"{SCORES[score]} in percent, compared with {first}. The 95 % interval and p come from one test of one "
        f"comparison ({DRAWS:,} draws). p (Holm) is corrected for the {count} of the table; below {LEVEL} it counts as "
        "evidence."
    ]
    if min_difference:
        lines.append(
            f"A difference of at most {min_difference:g} does not matter: p asks whether the difference is beyond it, "
            f"or surely within it."
        )
    if any(len(method.runs) > 1 for method in methods):
        runs = ", ".join(f"{method.label} {len(method.runs)}" for method in methods)
        lines.append(f"Runs: {runs}. The intervals also hold the differences between the runs of a method.")
    for model in dict.fromkeys(row.model for row in rows):
        verdicts = [
            f"{row.verdict} on {row.benchmark} ({row.difference:+.1f})"
            for row in rows
            if row.model == model and row.verdict in ("better", "worse", "too small to matter")
        ]
        lines.append(f"{model}: {'; '.join(verdicts) if verdicts else f'no evidence of a difference from {first}'}.")
    if any(row.verdict == "too few questions" for row in rows):
        lines.append(f"With fewer than {FEWEST_QUESTIONS} shared questions there is no verdict.")
    return lines


def remarks(methods: Sequence[Method]) -> list[str]:
    """Notes on what makes the results hard to compare: different graders, settings or questions."""
    first, *others = [run for method in methods for run in method.runs]
    notes = []
    for other in others:
        for name, ours in first.benchmarks.items():
            if theirs := other.benchmarks.get(name):
                shared = len(ours.golds.keys() & theirs.golds.keys())
                if shared < max(len(ours.golds), len(theirs.golds)):
                    counts = f"{len(ours.golds)} and {len(theirs.golds)} questions, {shared} shared"
                    notes.append(f"note: {name}: {first.label} and {other.label} have {counts}; only those are paired")
                chats = [bool((result.summary.get("model") or {}).get("chat")) for result in (ours, theirs)]
                if chats[0] != chats[1]:
                    label = (first if chats[0] else other).label
                    notes.append(
                        f"note: {name}: {label} was sampled by chat, so the endpoint wrote the prompt; an answer whose "
                        "thought the endpoint keeps back has a strict score of 0"
                    )
                notes += [
                    f"note: {name}: {first.label} and {other.label} differ in {key}: {a} and {b}"
                    for key, a, b in _differing_settings(ours.summary, theirs.summary)
                    if chats[0] == chats[1] or key not in ("endpoint", "prefill", "engine")
                ]
    return notes


def _as_text(
    methods: Sequence[Method],
    score: str,
    rows: Sequence[Comparison],
    more: Sequence[Comparison],
    found: Sequence[Flip] | None,
    min_difference: float,
    write: Style,
    *,
    alone: bool,
) -> str:
    first = methods[0].label
    if alone:
        return write.table(_cells(rows, first) if found is None else _flip_cells(found, first), 2)
    parts = [write.table(_cells(rows, first), 2)]
    if more:
        parts += ["", write.table(_cells(_with_largest_k(more), first, measured=True), 3)]
    if found is not None:
        parts += ["", *_flip_parts(found, first, write)]
    notes = explanation(methods, rows, score, min_difference)
    if more:
        notes.append(
            f"The second table has the largest k of Pass@k; --format json has every k. Its p (Holm) is corrected for "
            f"these {len(more)} comparisons."
        )
    notes += remarks(methods)
    return "\n".join([*parts, "", *map(write.line, notes)])


def _with_largest_k(rows: Sequence[Comparison]) -> list[Comparison]:
    """The rows without Pass@k of a k below the largest one of its model and benchmark."""
    largest: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.measure.startswith("pass@"):
            place, k = (row.model, row.benchmark), int(row.measure.removeprefix("pass@"))
            largest[place] = max(k, largest.get(place, 0))
    return [
        row
        for row in rows
        if not row.measure.startswith("pass@") or row.measure == f"pass@{largest[row.model, row.benchmark]}"
    ]


def _flip_parts(found: Sequence[Flip], first: str, write: Style, most: int = 20) -> list[str]:
    """A table of the first questions of each model and benchmark, and how many there are."""
    parts, shown = [], []
    for model, benchmark in dict.fromkeys((flip.model, flip.benchmark) for flip in found):
        some = [flip for flip in found if (flip.model, flip.benchmark) == (model, benchmark)]
        won = sum(flip.second > 0 for flip in some)
        cut = f"; the table has {most} of them, --format json all" if len(some) > most else ""
        parts.append(f"{benchmark}: only {model} solves {won} questions, only {first} {len(some) - won}{cut}.")
        shown += some[:most]
    if not shown:
        return [write.line("No question is solved by one of them alone.")]
    return [write.table(_flip_cells(shown, first), 4), "", *map(write.line, parts)]


def _differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    ours, theirs = _settings(a), _settings(b)
    keys = [key for key in ours | theirs if key not in UNREMARKED and ours.get(key) != theirs.get(key)]
    return [(key, _shown(ours.get(key)), _shown(theirs.get(key))) for key in keys]


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling, prompt and grader settings. A key that an old result lacks gets today's default."""
    defaults = Eval().model_dump(mode="json")
    return (
        defaults | (summary.get("settings") or {}) | (summary.get("prompt") or {}) | {"grader": _grader_name(summary)}
    )


def _shown(value: Any, longest: int = 40) -> str:
    text = repr(value) if isinstance(value, str) and (not value.strip() or "\n" in value) else str(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def _grader_name(summary: Mapping[str, Any]) -> str:
    grader = summary.get("grader") or {}
    return f"{grader.get('name')} {grader.get('version')} ({grader.get('code')})"


def _cells(rows: Sequence[Comparison], first: str, *, measured: bool = False) -> list[list[str]]:
    """The table of comparisons, with the column `measure` where there are several."""
    header = ["model", "benchmark", *(["measure"] if measured else []), "questions", first, "model's", "difference"]
    return [[*header, "95 %", "p", "p (Holm)", "verdict"]] + [
        [
            row.model,
            row.benchmark,
            *([_measure_name(row.measure)] if measured else []),
            str(row.questions) if " " not in row.benchmark else "",  # an average has several numbers
            _number(row.first, row),
            _number(row.second, row),
            _difference(row),
            f"[{_number(row.low, row, '+')}, {_number(row.high, row, '+')}]",
            f"{row.p:.4f}",
            f"{row.corrected_p:.4f}",
            row.verdict,
        ]
        for row in rows
    ]


def _flip_cells(found: Sequence[Flip], first: str) -> list[list[str]]:
    header = ["model", "benchmark", "question", "gold", f"{first}: right %", "model's"]
    return [header] + [
        [flip.model, flip.benchmark, flip.question, flip.gold, f"{flip.first:.1f}", f"{flip.second:.1f}"]
        for flip in found
    ]


def _measure_name(measure: str) -> str:
    return {"entropy": "entropy (nats)"}.get(measure, measure.replace("pass", "Pass"))


def _difference(row: Comparison) -> str:
    return _number(row.difference, row, "+")


def _number(value: float, row: Comparison, sign: str = "") -> str:
    """Percent with one decimal, nats and shares with three; "-" where there is no bound."""
    digits = 1 if unit(row.measure) == PERCENT else 3
    return f"{value:{sign}.{digits}f}" if math.isfinite(value) else "-"


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
