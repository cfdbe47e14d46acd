"""The curiosity map: tokens of held-out rows as student and teacher saw them, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.text import plain
from curiosft_cli.tools.report.budget import cut, fitting
from curiosft_cli.tools.report.read import RunRecord

MOST_BYTES = 2_500_000
MOST_TOKENS = 2048
FEWEST_TOKENS = 64
MOST_STEPS = 10
NUMBERS = ("entropy", "logp", "tau", "delta", "teacher_logp", "gap", "weight")
CANDIDATES = ("student", "teacher")


def token_rows(runs: Sequence[RunRecord], only: int | None = None) -> tuple[str, list[str]]:
    """The map for the page, packed; "" where no run kept tokens. And remarks on what was cut.

    Args:
        only: show this row alone, whole and at every evaluation. None: all rows, cut to fit the page.

    Raises:
        CurioError: no run kept the row `only`.
    """
    maps = [(run, _steps(run, None if only is not None else MOST_STEPS)) for run in runs]
    found = sorted({line["row"] for _, steps in maps for lines in steps.values() for line in lines})
    if only is not None and only not in found:
        kept = f"kept: {', '.join(map(str, found))}" if found else "no run has kept any"
        raise CurioError(f"--tokens {only}: that row is not there, {kept}", "Set log.token_rows and data.validation.")
    if not found:
        return "", []
    longest = max(len(line["tokens"]) for _, steps in maps for lines in steps.values() for line in lines)

    def make(most: int) -> list[dict[str, Any]]:
        return [{"run": plain(run.label), "rows": _rows(steps, most, only)} for run, steps in maps if steps]

    data, most = fitting(
        make,
        longest if only is not None else min(longest, MOST_TOKENS),
        MOST_BYTES,
        longest if only is not None else FEWEST_TOKENS,
    )
    remarks = []
    if most < longest:
        remarks.append(
            f"Only the first {most:,} tokens of a row are here; `curiosft report RUN --tokens ROW` shows all."
        )
    if any(len(steps) < len(list(_files(run))) for run, steps in maps):
        remarks.append(f"At most {MOST_STEPS} evaluations of a run are here; `--tokens ROW` shows all.")
    return data, remarks


def _files(run: RunRecord) -> list[tuple[int, Any]]:
    folder = run.folder.stage("sft").token_map(0).parent
    named = ((file.name.removeprefix("step-").split(".")[0], file) for file in folder.glob("step-*.jsonl.zst"))
    return sorted((int(step), file) for step, file in named if step.isdigit())


def _steps(run: RunRecord, most: int | None) -> dict[int, list[dict[str, Any]]]:
    """The lines of evenly chosen evaluations, the first and the last among them."""
    files = _files(run)
    if most is not None and len(files) > most:
        files = [files[round(place * (len(files) - 1) / (most - 1))] for place in range(most)]
    read = {step: [line for line in read_jsonl(file, run.left_out) if _is_whole(line)] for step, file in files}
    return {step: lines for step, lines in read.items() if lines}


def _is_whole(line: Mapping[str, Any]) -> bool:
    tokens = line.get("tokens")
    columns = [line[name] for name in (*NUMBERS, *CANDIDATES) if name in line]
    return (
        isinstance(line.get("row"), int)
        and isinstance(tokens, list)
        and all(len(column) == len(tokens) for column in columns)
    )


def _rows(steps: Mapping[int, Sequence[Mapping[str, Any]]], most: int, only: int | None) -> list[dict[str, Any]]:
    """Row by row: its tokens once, then the numbers and candidates of each evaluation."""
    rows: dict[int, dict[str, Any]] = {}
    for step, lines in steps.items():
        for line in lines:
            if only is not None and line["row"] != only:
                continue
            first = {
                "row": line["row"],
                "id": plain(str(line.get("id", ""))),
                "prompt": cut(str(line.get("prompt", "")), 3000),
                "tokens": [plain(str(token)) for token in line["tokens"][:most]],
                "steps": [],
            }
            numbers = {name: [_short(value) for value in line[name][:most]] for name in NUMBERS if name in line}
            candidates = {name: [_flat(some) for some in line[name][:most]] for name in CANDIDATES if name in line}
            rows.setdefault(line["row"], first)["steps"].append({"step": step, **numbers, **candidates})
    return [rows[row] for row in sorted(rows)]


def _flat(candidates: Sequence[Sequence[Any]]) -> list[Any]:
    return [part for text, chance in candidates for part in (plain(str(text)), _short(chance))]


def _short(value: Any) -> float | None:
    return float(f"{value:.3g}") if isinstance(value, int | float) and isfinite(value) else None
