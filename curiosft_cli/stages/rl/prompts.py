"""The prompts that RL samples from: read, tokenised, and what was left out, by reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.data.sources import read_all
from curiosft_cli.grading.grade import is_gradable
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import OPTIONAL_NUMBER, TEXT, read_jsonl, write_json
from curiosft_cli.stages.rl.rollouts import Prompt
from curiosft_cli.train.encode import PromptFormat, encode_prompt, encode_response, response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.data.records import Problem
    from curiosft_cli.run.log import Console
    from curiosft_cli.run.rundir import StageDir
    from curiosft_cli.run.sections import Config


def read_prompts(
    config: Config,
    stage: StageDir,
    tokenizer: PreTrainedTokenizerBase,
    console: Console,
    *,
    expert: bool,
    write: bool = True,
) -> list[Prompt]:
    """Read and tokenise the questions; say which were left out and why, and list them all in a file.

    Args:
        expert: the objective learns from the expert's responses, so questions without one are of no use.
        write: make that file (one rank does).

    Raises:
        CurioError: none is left.
    """
    style, listing = PromptFormat.from_config(config.model), stage.skipped_rows("train")
    problems = read_all(config.data, run_dir=stage.path.parent)
    left: dict[str, list[str]] = {
        "cannot be read": [str(row) for row in problems.skipped],
        "have an answer that cannot be graded": [problem.id for problem in problems if not is_gradable(problem)],
    }
    usable = [problem for problem in problems if is_gradable(problem)]
    if expert:
        left["lack an expert response"] = [p.id for p in usable if not response_text(p.response, style)]
        usable = [problem for problem in usable if response_text(problem.response, style)]
    if config.rl.pass_rates is not None:
        kept = by_pass_rate(usable, config.rl.pass_rates, config.rl.pass_rate_min, config.rl.pass_rate_max)
        ids = {problem.id for problem in kept}
        left["are always or never solved"] = [problem.id for problem in usable if problem.id not in ids]
        usable = kept
    prompts: list[Prompt] = []
    for problem in usable:
        ids = encode_prompt(tokenizer, problem, style)
        if len(ids) > config.data.max_prompt_length:
            left.setdefault("are longer than data.max_prompt_length", []).append(problem.id)
            continue
        response: tuple[list[int], bool] = ([], False)
        if expert:
            response = encode_response(tokenizer, problem.response, style, config.rl.max_completion_length)
        prompts.append(Prompt(problem, ids, tuple(response[0]), response[1]))
    for reason, rows in left.items():
        if rows:
            console.say(f"rl: {len(rows)} questions left out, they {reason}, e.g. {rows[0]}; all in {listing}")
    if write and any(left.values()):
        write_json(listing, {reason: rows for reason, rows in left.items() if rows})
    if not prompts:
        reasons = ", ".join(f"{len(rows)} {reason}" for reason, rows in left.items() if rows)
        raise CurioError(
            f"no question of {', '.join(config.data.train)} can be trained on: {reasons or 'there is none'}",
            f"Mend the data or the settings named; the questions are listed in {listing}.",
        )
    return prompts


def by_pass_rate(problems: Sequence[Problem], file: str, lowest: float, highest: float) -> list[Problem]:
    """The problems whose mean strict score in an evaluation's grades lies strictly between the two bounds.

    Problems that the evaluation did not see are kept.

    Raises:
        CurioError: there is no such file, it holds no grades or damaged ones, or it knows none of the problems.
    """
    if not Path(file).is_file():
        raise CurioError(f"rl.pass_rates = {file} is not a file", "Name an evaluation's grades.jsonl.zst.")
    scores: dict[str, list[float]] = defaultdict(list)
    for row in read_jsonl(Path(file), types={"id": TEXT, "strict": OPTIONAL_NUMBER}):
        if "strict" not in row:
            raise CurioError(f"rl.pass_rates = {file} holds no grades", "Name the file grades.jsonl.zst beside it.")
        if row["strict"] is not None:
            scores[row["id"]].append(row["strict"])
    rates = {name: sum(values) / len(values) for name, values in scores.items()}
    if not rates.keys() & {problem.id for problem in problems}:
        raise CurioError(
            f"rl.pass_rates = {file} knows none of the {len(problems)} questions",
            "Evaluate the questions that are trained on, with the same data files.",
        )
    return [p for p in problems if p.id not in rates or lowest < rates[p.id] < highest]
