"""`curiosft rephrase CONFIG --calibrate N`: how many planted faults the verifier finds in the user's own posts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.rephrase.judge.diff import CHOICE
from curiosft_cli.stages.rephrase.judge.function_words import KINDS_OF_WORDS
from curiosft_cli.stages.rephrase.judge.normalise import CJK, spelled
from curiosft_cli.stages.rephrase.judge.rules import is_too_long, judge_by_rules
from curiosft_cli.stages.rephrase.pairs import Rewritten, ask_verifier
from curiosft_cli.stages.rephrase.run import read_questions

NONE = "no fault"
SIGN = re.compile(r"\\leq?\b|\\geq?\b|(?<=[\w)}$ ])[+<>](?=[\w(\\ ])|(?<=[\w)}])-(?=\w)")
OPPOSITE = {"\\le": "\\ge", "\\ge": "\\le", "\\leq": "\\geq", "\\geq": "\\leq", "+": "-", "-": "+", "<": ">", ">": "<"}
SENTENCE_END = re.compile(r"(?<=[.?!])\s+|(?<=[。？！；])|(?<=;)\s+|\n+")
WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]+")
LEAKED = "\n\n$\\boxed{{{}}}$"

Fault = Callable[[str, random.Random], str | None]


def number(post: str, draw: random.Random) -> str | None:
    """Another number in the place of one."""
    found = draw.choice([*re.finditer(r"\d+", post)] or [None])
    return found and _replaced(post, found, str(int(found[0]) + draw.choice([1, 2, 10])))


def sign(post: str, draw: random.Random) -> str | None:
    """The opposite sign."""
    found = draw.choice([*SIGN.finditer(post)] or [None])
    return found and _replaced(post, found, OPPOSITE[found[0]])


def condition(post: str, draw: random.Random) -> str | None:
    """A sentence less, or what stands between two commas."""
    parts = SENTENCE_END.split(post)
    if len(parts) > 2:
        return post.replace(parts[draw.randrange(1, len(parts) - 1)], "", 1).strip()
    found = re.search(r"[,，、][^,，、.。$]{5,80}(?=[,，])", post)
    return found and _replaced(post, found, "")


def question(post: str, draw: random.Random) -> str | None:
    """The last sentence less."""
    parts = SENTENCE_END.split(post.strip())
    return post[: post.rindex(parts[-1])].strip() if len(parts) > 1 and parts[-1] else None


def quantifier(post: str, draw: random.Random) -> str | None:
    """A negation or a quantifier less, in the languages whose words are known."""
    return _without_word(post, {"negation", "quantifier"}, draw)


def unit(post: str, draw: random.Random) -> str | None:
    """A unit less."""
    return _without_word(post, {"unit"}, draw)


def choice(post: str, draw: random.Random) -> str | None:
    """The last choice less."""
    found = [*CHOICE.finditer(post)]
    return post[: found[-1].start()].strip() if len(found) > 2 else None


def leak(post: str, draw: random.Random) -> str | None:
    """An answer behind the question."""
    return post + LEAKED.format(draw.choice(re.findall(r"\d+", post) or ["2"]))


FAULTS: dict[str, Fault] = {
    "number": number,
    "sign": sign,
    "condition": condition,
    "quantifier": quantifier,
    "unit": unit,
    "choice": choice,
    "question": question,
    "leak": leak,
}


def calibrate(config: Config, posts: int, seed: int = 0) -> str:
    """Plant one fault of each kind in this many posts, ask the verifier about all of them, and count.

    Raises:
        CurioError: nobody verifies; the data cannot be read; the endpoint or the budget fails, as in the stage.
    """
    if config.rephrase.verify == "off":
        raise CurioError('rephrase.verify is "off": there is nobody to calibrate', 'Set rephrase.verify="model".')
    stage = RunDir(Path(config.run.root) / config.run.name).stage("rephrase")
    texts = {problem.question: None for *_, problem in read_questions(config, stage, [])}
    known = [text for text in texts if not is_too_long(text)]
    draw = random.Random(seed)
    planted = [pair for text in draw.sample(known, min(posts, len(known))) for pair in plant(text, draw)]
    by_rules = [judge_by_rules(pair.post, pair.rewrite) for pair in planted]
    verdicts = ask_verifier(config, list(zip(planted, by_rules, strict=True)), about_all=True)
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*FAULTS, NONE)}
    for pair, rule, verdict in zip(planted, by_rules, verdicts, strict=True):
        counts[str(pair.id)].update(["planted", f"rule {rule.outcome}", f"verifier {verdict.outcome}"])
    return as_table(counts)


def plant(post: str, draw: random.Random) -> Iterator[Rewritten]:
    """The post with each fault that it has a place for, and once without any."""
    yield Rewritten(NONE, post, post)
    for name, fault in FAULTS.items():
        spoiled = fault(post, draw)
        if spoiled and spelled(spoiled) != spelled(post):
            yield Rewritten(name, post, spoiled)


def as_table(counts: dict[str, Counter[str]]) -> str:
    """One line a kind: how many were planted, refused by rules, refused by the verifier, and left unanswered."""
    lines = [f"{'fault':12}{'planted':>9}{'by rules':>10}{'verifier':>10}{'catch rate':>12}{'unreadable':>12}"]
    total = sum((counted for name, counted in counts.items() if name != NONE), Counter())
    for name, counted in [*counts.items(), ("all faults", total)]:
        if counted["planted"]:
            rate = counted["verifier refused"] / counted["planted"]
            lines.append(
                f"{name:12}{counted['planted']:9}{counted['rule refused']:10}{counted['verifier refused']:10}"
                f"{rate:12.1%}{counted['verifier undecided']:12}"
            )
    return "\n".join([*lines, f"The catch rate of '{NONE}' is how often the verifier refuses what is right."])


def _replaced(text: str, found: re.Match[str], new: str) -> str:
    return text[: found.start()] + new + text[found.end() :]


def _without_word(post: str, kinds: set[str], draw: random.Random) -> str | None:
    found = [match for match in WORD.finditer(post) if KINDS_OF_WORDS.get(match[0].casefold()) in kinds]
    return " ".join(_replaced(post, draw.choice(found), "").split()) if found else None
