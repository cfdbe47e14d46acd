"""Before the first RL step: do prompt, stop tokens, reward and sampling fit together? Catches the silent zero reward.

curiosft rl CONFIG --preflight     prints the table and ends; exit code 4 for no-go
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import sample_seed
from curiosft_cli.grading.grade import grade
from curiosft_cli.run.device import resolve_dtype
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import write_json
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir, resolve_checkpoint
from curiosft_cli.run.text import one_line, show
from curiosft_cli.train.encode import decode_completion, end_token_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.data.records import Grade, Problem
    from curiosft_cli.engine.base import RolloutEngine, Sampling
    from curiosft_cli.run.sections import Config
    from curiosft_cli.stages.rl.rollouts import Prompt


@dataclass(frozen=True)
class PreflightCheck:
    """One line of the table.

    Attributes:
        name: what was checked.
        go: whether it is as it must be.
        seen: what was found.
        fix: what to do about it.
        plumbing: a failure means that no reward can be right, whatever the model writes.
    """

    name: str
    go: bool
    seen: str
    fix: str = ""
    plumbing: bool = True


def run(config: Config, stage: StageDir) -> None:
    """The stage behind `--preflight`: no training, one table on stdout.

    Raises:
        CurioError: exit code 4 when a check fails.
    """
    from curiosft_cli.engine.base import Sampling
    from curiosft_cli.objectives import RL_METHODS
    from curiosft_cli.stages.handover import open_engine_beside
    from curiosft_cli.stages.rl.prompts import read_prompts
    from curiosft_cli.train.encode import stop_token_ids
    from curiosft_cli.train.load import check_context, load_tokenizer

    rl, path = config.rl, resolve_checkpoint(config.rl.init, config)
    console = Console(stage.log_file)
    tokenizer = load_tokenizer(path, config.model)
    prompts = read_prompts(config, stage, tokenizer, console, expert=RL_METHODS[rl.objective].needs_expert)
    context = check_context(path, config.model, max(len(p.ids) for p in prompts) + rl.max_completion_length)
    sampling = Sampling(rl.temperature, rl.top_p, rl.max_completion_length, stop_token_ids(tokenizer, path))
    engine = open_engine_beside(config, rl, path, context, resolve_dtype(rl.precision))
    try:
        checks = preflight(config, tokenizer, prompts, engine, sampling)
    finally:
        engine.close()
    show(as_table(checks))
    write_json(stage.path / "preflight.json", [check.__dict__ for check in checks])
    if failed := [check for check in checks if not check.go]:
        raise CurioError(f"no go: {failed[0].name}: {failed[0].seen}", failed[0].fix, GUARD)


def preflight(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    engine: RolloutEngine,
    sampling: Sampling,
) -> list[PreflightCheck]:
    """Check the first `rl.preflight_prompts` prompts; one completion is sampled for each."""
    some = prompts[: config.rl.preflight_prompts]
    return [
        _prompt_check(config, tokenizer, some),
        _stop_check(tokenizer, sampling),
        *_hand_made_checks(config, tokenizer, [prompt.problem for prompt in some], sampling),
        *_sample_checks(config, tokenizer, some, engine, sampling),
    ]


def enforce(checks: Sequence[PreflightCheck], action: str, console: Console) -> None:
    """Print what failed; with "stop", end the run where no reward could be right.

    Raises:
        CurioError: exit code 4.
    """
    for check in checks:
        if not check.go:
            console.say(f"rl: preflight: {check.name}: {check.seen}. {check.fix}")
    broken = [check for check in checks if check.plumbing and not check.go]
    if broken and action == "stop":
        raise CurioError(
            f"no reward can be right: {broken[0].name}: {broken[0].seen}",
            f"{broken[0].fix} Or rl.preflight=warn.",
            GUARD,
        )


def as_table(checks: Sequence[PreflightCheck]) -> str:
    """Go or no go, what was seen, and the fix of each failure."""
    width = max(len(check.name) for check in checks)
    lines = [
        one_line(f"{'go   ' if check.go else 'NO GO'}  {check.name:<{width}}  {check.seen}")
        + ("" if check.go else f"\n{'':{width + 9}}{one_line(check.fix)}")
        for check in checks
    ]
    return "\n".join(lines)


def _prompt_check(config: Config, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> PreflightCheck:
    """The prompt's text must carry the question and end with the prefill, once."""
    prefill, wrong = config.model.prefill, []
    for prompt in prompts:
        text = str(tokenizer.decode(prompt.ids, skip_special_tokens=False))
        ends = text.endswith(prefill) and not text.removesuffix(prefill).rstrip().endswith(prefill.strip() or "\0")
        if not ends or prompt.problem.question.strip() not in text:
            wrong.append(prompt.problem.id)
    return PreflightCheck(
        "prompt",
        not wrong,
        f"{len(wrong)} of {len(prompts)} lack the question or end otherwise than with {prefill!r}"
        + (f", e.g. {wrong[0]}" if wrong else ""),
        "Check the chat template and model.prefill.",
    )


def _stop_check(tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> PreflightCheck:
    end = end_token_id(tokenizer)
    return PreflightCheck(
        "stop tokens",
        end in sampling.stop_token_ids,
        f"{tokenizer.convert_ids_to_tokens(end)} ({end}) ends a turn, {list(sampling.stop_token_ids)} a completion",
        "Set eos_token_id in the checkpoint's generation_config.json.",
    )


def _hand_made_checks(
    config: Config, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], sampling: Sampling
) -> list[PreflightCheck]:
    """A right and a wrong answer, written by us, through tokenizer, end of generation and grader."""
    right = [_graded(config, tokenizer, problem, problem.answer, sampling) for problem in problems]
    wrong = [_graded(config, tokenizer, problem, _another(problem), sampling) for problem in problems]
    missed = [p.id for p, found in zip(problems, right, strict=True) if found.strict != 1.0]
    praised = [p.id for p, found in zip(problems, wrong, strict=True) if found.strict != 0.0]
    reasons = Counter(found.format_error or found.reason for found in right if found.strict != 1.0)
    return [
        PreflightCheck(
            "right answers",
            not missed,
            f"{len(right) - len(missed)} of {len(right)} are rewarded"
            + (f"; not {missed[0]} ({', '.join(f'{why} {n}' for why, n in reasons.items())})" if missed else ""),
            "Check model.prefill, and the gold answers of the questions named.",
            plumbing=len(missed) == len(right),
        ),
        PreflightCheck(
            "wrong answers",
            not praised,
            f"{len(praised)} of {len(wrong)} are rewarded" + (f", e.g. {praised[0]}" if praised else ""),
            "Check the gold answers of the questions named.",
            plumbing=len(praised) == len(wrong),
        ),
    ]


def _another(problem: Problem) -> str:
    """An answer that is not the gold."""
    if problem.kind == "choice":
        return next(letter for letter in ascii_uppercase if letter != problem.answer.strip().upper())
    return "-918273645"


def _graded(
    config: Config, tokenizer: PreTrainedTokenizerBase, problem: Problem, answer: str, sampling: Sampling
) -> Grade:
    opening = "" if config.model.prefill else "<think>\n"
    text = f"{opening}I work it out step by step.\n</think>\n\nThe answer is \\boxed{{{answer}}}."
    ids = [*tokenizer.encode(text, add_special_tokens=False), end_token_id(tokenizer, config.model.end_token)]
    cut = next((place for place, token in enumerate(ids, 1) if token in sampling.stop_token_ids), len(ids))
    text = decode_completion(tokenizer, ids[:cut])
    return grade(text, problem, prefilled=bool(config.model.prefill), grader=config.rl.reward_grader)


def _sample_checks(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    engine: RolloutEngine,
    sampling: Sampling,
) -> list[PreflightCheck]:
    """What the model itself writes: is it cut, is it ever right, is it always right?"""
    from curiosft_cli.grading.pool import GraderPool
    from curiosft_cli.stages.graded_stream import GradedRequest, graded_stream

    requests = [
        GradedRequest(
            (index, 0),
            prompt.problem,
            prompt.ids,
            sample_seed(config.run.seed, "preflight", prompt.problem.id, 0),
        )
        for index, prompt in enumerate(prompts)
    ]
    grading: dict[str, Any] = {"prefilled": bool(config.model.prefill), "grader": config.rl.reward_grader}
    with GraderPool(config.rl.grader_workers) as pool:
        done = list(graded_stream(engine, pool, tokenizer, requests, sampling, **grading))
    cut = sum(one.completion.finish_reason == "length" for one in done)
    grades = [one.grade for one in done]
    solved = sum(found.strict or 0.0 for found in grades)
    reasons = ", ".join(f"{why} {count}" for why, count in Counter(found.reason for found in grades).most_common())
    return [
        PreflightCheck(
            "completion length",
            2 * cut <= len(prompts),
            f"{cut} of {len(prompts)} cut at {sampling.max_tokens} tokens",
            "Raise rl.max_completion_length, or start from a checkpoint that ends its answers.",
            plumbing=False,
        ),
        PreflightCheck(
            "pass rate",
            0 < solved < len(prompts),
            f"{solved:g} of {len(prompts)} right ({reasons})",
            "Every group of equal rewards teaches nothing: train with sft first, or choose easier or harder questions.",
            plumbing=False,
        ),
    ]


if __name__ == "__main__":
    run_stage(run)
