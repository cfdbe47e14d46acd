"""What in a forum post is the problem, and what is not: labels, sources, greetings, chat, answers, repetitions.

A number that stood in a label or in chat may go; a number that stood anywhere else belongs to the problem. In doubt a
sentence is the problem's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curiosft_cli.stages.rephrase.post_patterns import (
    ABOUT_POST,
    ANSWER_TOLD,
    ASIDES,
    ASKS,
    ASKS_FIRMLY,
    BREAK,
    CONDITION,
    EMOTICON,
    GREETING,
    HIDDEN,
    IMAGE,
    LABEL,
    MARKS,
    META,
    MIN_REPEATED,
    NAMED,
    NO_BREAK,
    OPINION,
    PARENTHESIS,
    PART,
    PERSON,
    QUANTITY,
    SECTION,
    SMALL_TALK,
    SOURCE,
    TAIL,
    VERB,
    WRITER,
    WRITER_SPEAKS,
)
from curiosft_cli.stages.rephrase.text import MATH, content_words, quantities


@dataclass(frozen=True)
class Post:
    """A post, taken apart.

    Attributes:
        problem: sentences of the problem, and maybe some chat that was not recognised.
        kept: the same with what follows the question and may or may not belong to it, in the post's order.
        labels: points, numbers and sources of the problem.
        chat: what talks about the post, its writer or the answer.
    """

    problem: tuple[str, ...]
    kept: tuple[str, ...]
    labels: tuple[str, ...]
    chat: tuple[str, ...]

    @property
    def needed(self) -> str:
        """What must survive."""
        return " ".join(self.problem)

    @property
    def allowed(self) -> str:
        """What may survive."""
        return " ".join(self.kept)


def read_post(post: str) -> Post:
    """Take a post apart."""
    formulas: list[str] = []
    labels: list[str] = []
    chat: list[str] = []

    def hide(match: re.Match[str]) -> str:
        formulas.append(match[0])
        return f"\ue000{len(formulas) - 1}\ue001"

    def take(into: list[str], replacement: str, match: re.Match[str]) -> str:
        into.append(match[0])
        return replacement

    text = SECTION.sub(lambda match: take(labels, "", match), post)
    text = MATH.sub(hide, IMAGE.sub(lambda match: f"\n{hide(match)}\n", text))
    text = EMOTICON.sub("\n", text)
    text = ASIDES.sub(lambda match: take(chat, " ", match), text)
    for mark in MARKS:
        text = mark.sub(lambda match: take(labels, " ", match), text)
    text = PARENTHESIS.sub(lambda match: take(chat, " ", match) if _is_remark(match[1]) else match[0], text)
    text = OPINION.sub(lambda match: take(chat, " ", match), text)
    tail = TAIL.search(text)
    if tail and asks(text[: tail.start()]):
        chat += sentences(text[tail.start() :])
        text = text[: tail.start()]
    parts: list[str] = []
    for sentence in sentences(text):
        if part := _without_labels(sentence, labels, with_source=not parts):
            parts.append(part)
    kept: list[str] = []
    for part in parts:
        (chat if is_chat(part) else kept).append(part)

    def shown(parts: list[str]) -> tuple[str, ...]:
        return tuple(HIDDEN.sub(lambda match: formulas[int(match[1])], part) for part in parts)

    problem = tuple(part for part in shown(_without_repetitions(_stated(kept))) if not IMAGE.match(part))
    return Post(problem, shown(kept), shown(labels), shown(chat))


def sentences(text: str) -> list[str]:
    """The sentences of a text without formulas, cut at line breaks, full stops, question marks and colons."""
    cuts = [
        match.span()
        for match in BREAK.finditer(text)
        if "\n" in match[0] or not NO_BREAK.search(text[max(0, match.start() - 16) : match.start()])
    ]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [part for start, end in zip(starts, ends, strict=True) if (part := text[start:end].strip())]


def is_chat(sentence: str) -> bool:
    """Whether a sentence talks about the post, its writer or the answer, not about the problem."""
    if ANSWER_TOLD.search(sentence) or META.search(sentence):
        return True
    measured = bool(QUANTITY.search(sentence))
    if ABOUT_POST.search(sentence):
        return not (measured and asks(sentence)) or bool(WRITER_SPEAKS.match(sentence))
    if SMALL_TALK.search(sentence):
        return not measured
    return (
        bool(NAMED.search(sentence)) and len(sentence.split()) < 9 and not asks(sentence) and not VERB.search(sentence)
    )


def _is_remark(text: str) -> bool:
    """Whether a parenthesis is chat."""
    return is_chat(text) or bool(WRITER.search(text) and not CONDITION.search(text) and not asks(text))


def asks(text: str) -> bool:
    """Whether a text asks for something or sets something up."""
    return bool(ASKS.search(text))


def _stated(parts: list[str]) -> list[str]:
    """The sentences up to the last one that asks, and those after it that state something of the problem."""
    idle = _idle(parts)
    asking = [index for index, part in enumerate(parts) if asks(part) and index not in idle]
    firm = [index for index in asking if not SMALL_TALK.search(parts[index])]
    last = max(firm or asking or [len(parts)])
    return [part for index, part in enumerate(parts) if index not in idle and (index <= last or _states(part))]


def _idle(parts: list[str]) -> set[int]:
    """Which sentences behind the problem's question speak to the reader and share no number, term or word with it."""
    found: set[int] = set()
    words: set[str] = set()
    asked = False
    for index, part in enumerate(parts):
        own = content_words(part)
        speaks = asked and ("?" in part or PERSON.search(part))
        if speaks and not (own & words or QUANTITY.search(part) or CONDITION.search(part) or quantities(part)):
            found.add(index)
        words |= own
        asked = asked or bool(ASKS_FIRMLY.search(part))
    return found


def _states(sentence: str) -> bool:
    """Whether a sentence after the question surely belongs to it: a formula, or a quantity with a verb."""
    if SMALL_TALK.search(sentence) or sentence.startswith(("//", "~")):
        return False
    if PERSON.search(sentence) and not CONDITION.search(sentence):
        return False
    return bool(PART.match(sentence)) or bool(
        re.search("[\ue000=<>^]", sentence) or (QUANTITY.search(sentence) and VERB.search(sentence))
    )


def _without_labels(sentence: str, labels: list[str], *, with_source: bool) -> str:
    while (
        label := LABEL.match(sentence) or GREETING.match(sentence) or (SOURCE.match(sentence) if with_source else None)
    ):
        labels.append(label[0])
        sentence = sentence[label.end() :]
    return sentence.strip()


def _without_repetitions(parts: list[str]) -> list[str]:
    """Leave out a sentence that another one contains, such as a title."""
    plain = [re.sub(r"[\W_]", "", part).lower() for part in parts]
    kept: list[str] = []
    for index, (part, text) in enumerate(zip(parts, plain, strict=True)):
        others = plain[:index] if text in plain[:index] else plain[index + 1 :]
        if len(text) < MIN_REPEATED or not any(text in other for other in others):
            kept.append(part)
    return kept
