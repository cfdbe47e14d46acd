"""The results of an evaluation as text: a table like the paper's, one with all numbers, and notes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.evaluation.results import SUMMARY, in_table_order
from curiosft_cli.run.files import read_json
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.tables import as_text

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
    return "\n\n".join([paper_table(rows, summary["averages"]), detail_table(rows), "\n".join(map(one_line, notes))])


def paper_table(rows: Sequence[SummaryRow], averages: Mapping[str, Mapping[str, SummaryRow]]) -> str:
    """One line per checkpoint: Avg@k of each benchmark and suite in percent, mean entropy in nats."""
    names = in_table_order(list(dict.fromkeys(row["benchmark"] for row in rows)))
    titles = list(dict.fromkeys(title for found in averages.values() for title in found))
    lines = [["checkpoint", *names, *titles, "entropy (nats)"]]
    for reference in dict.fromkeys(row["checkpoint"] for row in rows):
        mine = {row["benchmark"]: row for row in rows if row["checkpoint"] == reference}
        entropies = [mine[name]["entropy_nats"] for name in names if mine[name]["entropy_nats"] is not None]
        cells = [_score(mine[name]) for name in names] + [
            _score(averages[reference].get(title, {})) for title in titles
        ]
        lines.append([reference, *cells, f"{sum(entropies) / len(entropies):.3f}" if entropies else "-"])
    return as_text(lines)


def detail_table(rows: Sequence[SummaryRow]) -> str:
    """One line per checkpoint and benchmark."""
    ks = sorted({int(k) for row in rows for k in row["pass"]})
    header = ["checkpoint", "benchmark", "Avg@k", "± SE", *(f"Pass@{k}" for k in ks), "Maj@k", "strict", "format"]
    header += ["truncated", "no answer", "tokens", "diversity", "unique", "entropy (nats)"]
    lines = [header]
    for row in rows:
        percents = [row["avg"], row["standard_error"], *(row["pass"].get(str(k)) for k in ks)]
        percents += [row["maj"], row["strict"], row["format"], row["truncated"], row["no_answer"]]
        lines.append(
            [
                row["checkpoint"],
                f"{row['benchmark']} ({row['questions']} x {row['samples']})",
                *(_number(value, 1) for value in percents),
                f"{row['tokens_mean']:.0f}",
                _number(row["ngram_diversity_4"], 2),
                _number(row["unique_answers"], 1),
                _number(row["entropy_nats"], 3),
            ]
        )
    return as_text(lines, left=2)


def _score(row: SummaryRow) -> str:
    if row.get("avg") is None:
        return "-"
    error = row["standard_error"]
    return f"{row['avg']:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _without_thought(row: SummaryRow) -> str:
    if not row.get("no_thought"):
        return ""
    return (
        f" {row['no_thought']:.0f} % of the answers have no thought: the model wrote none, or the endpoint kept it "
        "back. Their strict score is 0 for this alone, so compare the answer scores."
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
