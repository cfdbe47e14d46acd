"""The results of an evaluation as text: a table like the paper's, one with all numbers, and notes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from curiosft_cli.evaluation.results import SUMMARY, in_table_order
from curiosft_cli.run.files import read_json
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.tables import as_text, best_marked

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config

SummaryRow = Mapping[str, Any]

CHAT = (
    "sampled by chat, so the endpoint wrote the prompt. The opening think tag may be its or the model's; apart from "
    "that, strict and format ask the same as of completions."
)


def print_results(config: Config, *, as_json: bool) -> None:
    """Print the results of an evaluation: `results_report`, or summary.json on one line."""
    stage = RunDir(Path(config.run.root) / config.run.name).stage(config.eval.name)
    if as_json:
        show(json.dumps(read_json(stage.path / SUMMARY), ensure_ascii=False))
        return
    show(results_report(stage))


def results_report(stage: StageDir) -> str:
    """Both tables of an evaluation's summary.json, and notes on them."""
    summary = read_json(stage.path / SUMMARY)
    rows = summary["results"]
    grader = rows[0]["grader"]
    notes = [f"Percent, ± one standard error over questions; grader {grader['name']} {grader['version']}."]
    tables = [paper_table(rows, summary["averages"]), detail_table(rows)]
    if any("*" in line for line in tables[0].splitlines()[1:]):
        notes.append("* is the highest score; `curiosft compare` says whether there is evidence for a difference.")
    for row in rows:
        where = f"{row['checkpoint']} on {row['benchmark']}"
        notes.append(f"{where}: {_counts(row['reasons'])}.")
        if row["ungradable_questions"]:
            notes.append(
                f"{where}: {row['ungradable_questions']} questions have a gold that cannot be graded; left out."
            )
        if row["prompt_too_long"]:
            notes.append(f"{where}: {row['prompt_too_long']} samples were not drawn (prompt too long) and score 0.")
        if row["refused"]:
            notes.append(f"{where}: the endpoint refused {row['refused']} requests; they score 0.")
        unfinished = {name: count for name, count in row["grader_status"].items() if name != "ok"}
        if row["model"].get("chat"):
            notes.append(f"{where}: {CHAT}{_without_thought(row)}")
        if row["entropy_nats"] is None and row["settings"]["engine"] == "openai":
            notes.append(f"{where}: entropy is not measured for a model behind an endpoint.")
        if unfinished:
            notes.append(f"{where}: grading did not finish, scored 0: {_counts(unfinished)}.")
    return "\n\n".join([*tables, "\n".join(map(one_line, notes))])


def paper_table(rows: Sequence[SummaryRow], averages: Mapping[str, Mapping[str, SummaryRow]]) -> str:
    """One line per checkpoint: Avg@k of each benchmark and suite in percent, mean entropy in nats."""
    names = in_table_order(list(dict.fromkeys(row["benchmark"] for row in rows)))
    titles = list(dict.fromkeys(title for found in averages.values() for title in found))
    references = list(dict.fromkeys(row["checkpoint"] for row in rows))
    found = {(row["checkpoint"], row["benchmark"]): row for row in rows}
    columns = [["checkpoint", *references]]
    for name in (*names, *titles):
        scores = [found.get((reference, name)) or averages[reference].get(name, {}) for reference in references]
        values = [score.get("avg") for score in scores]
        cells = [_number(score.get("avg"), 1, score.get("standard_error")) for score in scores]
        columns.append([name, *best_marked(cells, values, [name] * len(cells))])
    entropies = [
        [row["entropy_nats"] for row in rows if row["checkpoint"] == reference and row["entropy_nats"] is not None]
        for reference in references
    ]
    columns.append(["entropy (nats)", *(_number(fmean(some) if some else None, 3) for some in entropies)])
    return as_text(list(zip(*columns, strict=True)))


def detail_table(rows: Sequence[SummaryRow]) -> str:
    """One line per checkpoint and benchmark. Pass@1 is not there: it equals Avg@k."""
    ks = sorted({k for row in rows for k in row["pass"]} - {"1"}, key=int)
    flat = [
        {
            **row,
            "place": f"{row['benchmark']} ({row['questions']} x {row['samples']})",
            **{f"Pass@{k}": row["pass"].get(k) for k in ks},
            **{f"Pass@{k} ±": row.get("pass_standard_error", {}).get(k) for k in ks},
        }
        for row in rows
    ]
    columns = [
        ["checkpoint", *(row["checkpoint"] for row in flat)],
        ["benchmark", *(row["place"] for row in flat)],
        _column(flat, "Avg@k", "avg", 1, "standard_error", score=True),
        *(_column(flat, f"Pass@{k}", f"Pass@{k}", 1, f"Pass@{k} ±", score=True) for k in ks),
        _column(flat, "Maj@k", "maj", 1, score=True),
        _column(flat, "strict", "strict", 1, "strict_standard_error", score=True),
        _column(flat, "format", "format", 1),
        _column(flat, "truncated", "truncated", 1),
        _column(flat, "no answer", "no_answer", 1),
        _column(flat, "tokens", "tokens_mean", 0),
        _column(flat, "diversity", "ngram_diversity_4", 2, "ngram_diversity_standard_error"),
        _column(flat, "unique", "unique_answers", 1),
        _column(flat, "entropy (nats)", "entropy_nats", 3, "entropy_standard_error_nats"),
    ]
    return as_text(list(zip(*columns, strict=True)), left=2)


def _column(
    rows: Sequence[SummaryRow], title: str, key: str, digits: int, error: str = "", *, score: bool = False
) -> list[str]:
    """One number of each row with its standard error; the best score of each benchmark is marked."""
    cells = [_number(row.get(key), digits, row.get(error)) for row in rows]
    if score:
        cells = best_marked(cells, [row.get(key) for row in rows], [row["benchmark"] for row in rows])
    return [title, *cells]


def _number(value: float | None, digits: int, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _without_thought(row: SummaryRow) -> str:
    if not row.get("no_thought"):
        return ""
    return (
        f" {row['no_thought']:.0f} % of the answers have no thought: the model wrote none, or the endpoint kept it "
        "back. Their strict score is 0 for this alone, so compare the answer scores."
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
