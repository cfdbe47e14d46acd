"""What `curiosft rephrase` would ask, cost and take: nothing is asked, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from curiosft_cli.data.prompts import rephrase_message
from curiosft_cli.engine.endpoint.budget import CHARACTERS_PER_TOKEN
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.rephrase.answer_log import STRICTER
from curiosft_cli.stages.rephrase.ask import LOCAL, dearest_price, verifier
from curiosft_cli.stages.rephrase.judge.verify import LONGEST_ANSWER, PROMPT
from curiosft_cli.stages.rephrase.run import look_through, open_log, unanswered

FIRST_TOKEN_S = 1.0
TOKENS_PER_S = 40.0


@dataclass(frozen=True)
class Plan:
    """The first round asks for every rewrite once; verdicts of the verifier and second rewrites follow where needed.

    Attributes:
        rows: rows that can be read.
        questions: different questions.
        answered: of these, answered by earlier runs or never to be asked.
        requests: of the first round.
        most_requests: if a verifier judges every rewrite and refuses the first one of each question.
        prompt_tokens: of the first round.
        answer_tokens: of the first round, at most: an answer is not longer than its question.
        most_prompt_tokens: with all of that.
        counted_with: how the tokens were counted.
        usd: cost of the first round, US dollars; None without a price.
        most_usd: with all of that.
        price_from: where the price comes from.
        seconds: of the first round at the configured concurrency.
        answer_s: seconds an answer takes.
        answer_s_from: how that is known.
    """

    rows: int
    questions: int
    answered: int
    requests: int
    most_requests: int
    prompt_tokens: int
    answer_tokens: int
    most_prompt_tokens: int
    counted_with: str
    usd: float | None
    most_usd: float | None
    price_from: str | None
    seconds: float
    answer_s: float
    answer_s_from: str


def plan_rephrase(config: Config, *, as_json: bool) -> str:
    """What to print."""
    plan = make_plan(config)
    return json.dumps(asdict(plan)) if as_json else as_text(plan, config)


def make_plan(config: Config) -> Plan:
    """Read the data and the saved answers, and count.

    Raises:
        CurioError: the data cannot be read, or the price is needed and not known.
    """
    settings = config.rephrase
    stage = RunDir(Path(config.run.root) / config.run.name).stage("rephrase")
    count, counted_with = token_counter(config.model.path if settings.base_url == LOCAL else settings.tokenizer)
    frame, stricter = count(rephrase_message("")), count(STRICTER)
    with open_log(config, stage, read_only=True) as log:
        survey = look_through(config, stage, log, lambda *_: None)
        answers, waited_s = log.totals["answers"], log.answer_s
    requests, asked = len(survey.missing), 0
    for question in unanswered(config, stage, survey):
        asked += count(question)
    prompts = frame * requests + asked
    rounds, verdicts = 1 + settings.second_attempt, requests * (verifier(settings) is not None)
    # The verifier reads the post, the rewrite and the spans that differ, which together are as long as the post.
    most_in = (
        rounds * (prompts + count(PROMPT) * verdicts + 3 * asked * bool(verdicts)) + (rounds - 1) * stricter * requests
    )
    most_out = rounds * (asked + verdicts * round(LONGEST_ANSWER / CHARACTERS_PER_TOKEN))
    price = dearest_price(settings)
    if answers:
        answer_s, known = waited_s / answers, f"measured on {answers} saved answers"
    else:
        answer_s = FIRST_TOKEN_S + asked / max(requests, 1) / TOKENS_PER_S
        known = f"assumed: {FIRST_TOKEN_S:g} s and {TOKENS_PER_S:g} tokens a second"
    return Plan(
        rows=survey.rows,
        questions=survey.questions,
        answered=survey.questions - requests,
        requests=requests,
        most_requests=rounds * (requests + verdicts),
        prompt_tokens=prompts,
        answer_tokens=asked,
        most_prompt_tokens=most_in,
        counted_with=counted_with,
        usd=price.of(prompts, asked) if price else None,
        most_usd=price.of(most_in, most_out) if price else None,
        price_from=price.origin if price else None,
        seconds=requests / settings.concurrency * answer_s,
        answer_s=answer_s,
        answer_s_from=known,
    )


def token_counter(name: str) -> tuple[Callable[[str], int], str]:
    """A function that counts the tokens of a text, and what it counts with; an estimate says that it is one."""
    from tokenizers import Tokenizer

    path = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the tokenizers library and the hub's client raise many kinds
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        return (
            lambda text: round(len(text) / CHARACTERS_PER_TOKEN),
            f"ESTIMATED at {CHARACTERS_PER_TOKEN:g} characters a token: the tokenizer {name} cannot be had ({reason})",
        )
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), f"counted with {name}"


def as_text(plan: Plan, config: Config) -> str:
    """The plan on one screen."""
    settings = config.rephrase
    cost = "unknown: set rephrase.input_usd_per_million and rephrase.output_usd_per_million"
    price = dearest_price(settings)
    if price and plan.usd is not None:
        cost = f"${plan.usd:,.2f}, at most ${plan.most_usd:,.2f} with verdicts and second attempts"
        cost += (
            f" (${price.input_usd:g} in, ${price.output_usd:g} out per million tokens: {price.origin}, no discounts)"
        )
    minutes, seconds = divmod(round(plan.seconds), 60)
    lines = {
        "questions": f"{plan.rows:,} rows, {plan.questions:,} different, {plan.answered:,} need no request",
        "requests": f"{plan.requests:,}, at most {plan.most_requests:,} with verdicts and second attempts",
        "tokens": f"{plan.prompt_tokens:,} in, up to {plan.answer_tokens:,} out ({plan.counted_with})",
        "cost": cost,
        "time": f"{minutes}:{seconds:02d} min at {settings.concurrency} in flight, {plan.answer_s:.1f} s an answer "
        f"({plan.answer_s_from})",
        "limits": f"rephrase.budget_usd = {settings.budget_usd}, rephrase.max_requests = {settings.max_requests}",
    }
    return "\n".join(f"{name:10}{text}" for name, text in lines.items())
