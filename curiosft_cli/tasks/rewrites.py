"""Checks on a rewritten question: whatever changed the problem is not used.

Every number, formula and mathematical term of the problem must survive where it stood, none may be new, and nothing
but the problem may be there. Cleaning takes away; it does not rephrase.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from curiosft_cli.tasks.posts import ANSWER_TOLD, MATH, Post, asks, read_post
from curiosft_cli.tasks.prompts import REPHRASE_PROMPT
from curiosft_cli.tasks.vocabulary import FREE_WORDS, NUMBER_WORDS, TERMS

STRICTER = """

Write the problem statement alone. Copy its words: every number, formula, unit, name and condition stays exactly as it is given. Add nothing: no heading, no comment, no solution, no answer."""  # noqa: E501

_REFUSAL = re.compile(
    r"\b(?:I['’]?m\s+sorry|I\s+(?:cannot|can['’]t|am\s+unable|apologi[sz]e)|as\s+an\s+AI|no\s+(?:math\w*\s+)?problem\s+(?:was\s+|is\s+)?"
    r"(?:found|given|provided|present|statement)|(?:does|do)\s+not\s+contain\s+a\s+(?:math|problem))",
    re.IGNORECASE,
)
_COMMENTARY = re.compile(
    r"^\W*(?:sure|certainly|of\s+course|okay|ok|absolutely|here(?:['’]s|\s+is|\s+are)|the\s+(?:extracted|cleaned|problem\s+is)"
    r"|extracted|below\s+is|this\s+is\s+the|got\s+it|thanks?|hi|hello)\b"
    r"|\b(?:let\s+me\s+know|hope\s+this\s+helps|I(?:['’]ve|\s+have)?\s+(?:removed|extracted|cleaned|kept|corrected|changed|rewr\w+)"
    r"|has\s+been\s+(?:removed|cleaned|extracted)|(?:note|comment|explanation|changes?)\s*:|the\s+original\s+(?:post|text)"
    r"|irrelevant|problem\s+statement\b|the\s+post)",
    re.IGNORECASE,
)
_SOLUTION = re.compile(
    r"\bfinal\s+answer\b|\banswer\s*[:=]|\b(?:solution|proof|step\s+\d+|hint)\s*[:.]|\btherefore\b|\bthus\b|\bhence\b"
    r"|\bwe\s+(?:get|obtain|find|have\s+that|conclude|see)\b|\bso\s+the\s+(?:answer|result|value)\b|\\therefore|\\implies"
    r"|\b(?:first|now),\s+we\b|\bit\s+follows\b|答案|解[:：]",
    re.IGNORECASE,
)
_PROMPT_WORDS = ("Example 1:", "Example 2:", "Input:", "Output:", "math-related forum", "Here are a few examples")
_EXAMPLES = tuple(
    part.partition("Output:")[2].strip().partition("\n")[0]
    for part in REPHRASE_PROMPT.partition("Now, here is")[0].split("Example ")[1:]
)
_WRAPPING = re.compile(
    r"^\s*(?:```\w*\n|\*{0,2}(?:output|problem|question|(?:extracted|cleaned)\s+(?:problem|question))\*{0,2}\s*:\s*\*{0,2}\s*)"
    r"|\s*```\s*$",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+", re.UNICODE)
_CJK = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff])|(?=[\u3040-\u30ff\u3400-\u9fff])")
_SCRIPTS = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "THAI",
)
_FLAT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\\[|\\\]|\\\(|\\\)|\\\\|\$|&", ""),
        (r"\\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])|[,;:! ])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text|mathrm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}", r"\1"),
        (r"\\(le|ge|ne)q(?![A-Za-z])", r"\\\1"),
        (r"\\[lc]?dots(?![A-Za-z])|…|\.{2,}", "..."),
        (r"(?<=\d)(?:\{,\}|,)(?:\\!)?(?=\d{3}(?!\d))", ""),
        (r"[*_]{2}", ""),
        (r"\s+", ""),
        (r"\{([^{}\\]|\\[A-Za-z]+)\}", r"\1"),
    )
]
_SIGNS = str.maketrans({
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "·": r"\cdot ", "−": "-", "–": "-",
    "π": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "²": "^2", "³": "^3", "√": r"\sqrt ", "∈": r"\in ", "’": "'", "‘": "'",
})  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What becomes of an answer.

    Attributes:
        outcome: "accepted"; "kept_original" when the answer is not used; "rejected" when the post is no problem either.
        reason: "ok", or the first check that failed and what it found.
    """

    outcome: Literal["accepted", "kept_original", "rejected"]
    reason: str


def judge(original: str, rewritten: str, *, longest: float = 1.2, shortest: float = 0.5) -> Verdict:
    """Accept a rewrite only if it still is the same problem and nothing else.

    Args:
        original: the post.
        rewritten: the model's answer.
        longest: greatest length by the post's length, in characters.
        shortest: least length by that of the post's problem part, in characters.
    """
    text, post = tidy(rewritten), read_post(original)
    reason = (
        misses_the_task(original, post, text)
        or wrong_size(original, post, text, longest, shortest)
        or changed_quantities(post, text)
        or changed_formulas(original, post, text)
        or keeps_chat(post, text)
        or changed_wording(original, post, text)
    )
    if reason is None:
        return Verdict("accepted", "ok")
    is_problem = asks(post.needed) or bool(_numbers(post.needed)) or bool(formulas(post.needed))
    return Verdict("kept_original" if is_problem else "rejected", reason)


def tidy(rewritten: str) -> str:
    """The answer without code fences and without a label such as `Output:` in front."""
    return _WRAPPING.sub("", rewritten.strip()).strip()


def flags(question: str) -> list[str]:
    """What a reader may want to look at: `several questions`, `image`."""
    found = []
    labelled = re.findall(r"(?<![\w)\]}^_\\])\((?:\d|[ivx]{1,3}|[a-e])\)", question)
    if question.count("?") > 1 or len(set(labelled)) > 1:
        found.append("several questions")
    if re.search(
        r"!\[|\[asy\]|\\includegraphics|\[img|\b(?:figure|diagram|picture|image|graph)\s+(?:below|above|shows?|shown|on)"
        r"|\b(?:as\s+shown|shown\s+(?:below|above|in)|in\s+the\s+(?:figure|diagram|picture|image))\b",
        question,
        re.IGNORECASE,
    ):
        found.append("image")
    return found


def misses_the_task(original: str, post: Post, text: str) -> str | None:
    """Empty, a refusal, the prompt's own example, commentary, a solution, another language, or no question."""
    flat, problem = _flat(text), post.allowed
    if not text:
        return "empty"
    if _REFUSAL.search(text) and not _REFUSAL.search(original):
        return "refusal"
    if any(word in text and word not in original for word in _PROMPT_WORDS) or any(
        _flat(example) in flat and _flat(example) not in _flat(original) for example in _EXAMPLES
    ):
        return "echoes the prompt"
    if (found := _COMMENTARY.search(text)) and found[0].lower() not in problem.lower():
        return f"commentary: {found[0].strip()}"
    if (found := _SOLUTION.search(text) or ANSWER_TOLD.search(text)) and found[0].lower() not in problem.lower():
        return f"solution leaked: {found[0].strip()}"
    if _script(text) != _script(problem or original):
        return f"language: {_script(text)}"
    return "no question" if asks(problem) and not asks(text) else None


def wrong_size(original: str, post: Post, text: str, longest: float, shortest: float) -> str | None:
    """Much longer than the post, or much shorter than its problem."""
    if len(text) > longest * len(original) + 10:
        return f"too long: {len(text)} characters for {len(original)}"
    if len(text) < shortest * len(post.needed):
        return f"too short: {len(text)} characters for {len(post.needed)}"
    return None


def changed_quantities(post: Post, text: str) -> str | None:
    """A number or a mathematical term of the problem is gone, or one is new or stands elsewhere.

    Cleaning only takes away, so the numbers and terms of the rewrite come in the problem's order; numbers of labels
    may be left in.
    """
    needed, there, allowed = (_quantities(part) for part in (post.needed, text, post.allowed))
    if lost := _only_numbers(needed) - _only_numbers(there):
        return f"number lost: {min(lost)}"
    if lost_terms := {token for token in needed if not _is_number(token)} - set(there):
        return f"term lost: {min(lost_terms)}"
    labels = set(_quantities(" ".join(post.labels)))
    place = 0
    for token in there:
        if token in allowed[place:]:
            place = allowed.index(token, place) + 1
        elif token not in labels:
            return f"{'number' if _is_number(token) else 'term'} {'moved' if token in allowed else 'added'}: {token}"
    return None


def changed_formulas(original: str, post: Post, text: str) -> str | None:
    """A formula of the problem is not there as it was, or a formula is new."""
    flat, whole = _flat(text), _flat(original)
    for formula in formulas(post.needed):
        if formula not in flat:
            return f"formula lost: {formula}"
    for formula in formulas(text):
        if formula not in whole:
            return f"formula added: {formula}"
    return None


def keeps_chat(post: Post, text: str, shortest: int = 12) -> str | None:
    """A sentence of the post that is not the problem's stands in the rewrite."""
    flat, problem = _flat(text).lower(), _flat(post.allowed).lower()
    for sentence in post.chat:
        chat = _flat(sentence).lower().rstrip(".!")
        if len(chat) >= shortest and chat in flat and chat not in problem:
            return f"chat kept: {sentence}"
    return None


def changed_wording(original: str, post: Post, text: str, kept: float = 0.7, added: float = 0.15) -> str | None:
    """Less than `kept` of the problem's words or nothing of one of its sentences survives; more than `added` is new."""
    source, needed, there = (set(_long_words(part)) for part in (original, post.needed, text))
    if len(needed) > 4 and len(needed & there) < kept * len(needed):
        return f"words lost: {', '.join(sorted(needed - there)[:5])}"
    for sentence in post.problem:
        words = set(_long_words(sentence)) - FREE_WORDS
        if words and not words & there and (_quantities(sentence) or formulas(sentence)):
            return f"sentence lost: {sentence}"
    new = there - source - FREE_WORDS
    if len(new) > max(1, added * len(there)):
        return f"words added: {', '.join(sorted(new)[:5])}"
    return None


def formulas(text: str) -> list[str]:
    """The delimited formulas of a text and its undelimited runs around an operator, in one spelling."""
    found = [next(filter(None, match.groups())) for match in MATH.finditer(text)]
    run: list[str] = []
    for word in [*_without_formulas(text).split(), ""]:
        bare = word.strip(".,;:!?()\"'")
        if bare and (re.search(r"[=<>^+*/_\\]", word) or re.fullmatch(r"-?\d[\d.,]*|[a-zA-Z]|-", bare)):
            run.append(word)
            continue
        if re.search(r"[=<>^+*/\\]", " ".join(run)):
            found.append(" ".join(run))
        run = []
    return [flat for formula in found if (flat := _flat(formula).strip(".,;:!?。，"))]


def _flat(text: str) -> str:
    """A text without white space and delimiters, its formulas in one spelling."""
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS))
    for pattern, replacement in _FLAT:
        text = pattern.sub(replacement, text)
    return text


def _words(text: str) -> list[str]:
    """Lower-case words and numbers, number words as digits, ideographs one by one."""
    text = re.sub(
        r"(?<=\d)(?:\{,\}|,)(?:\\!)?(?=\d{3}(?!\d))", "", unicodedata.normalize("NFKC", text.translate(_SIGNS))
    )
    words = [piece for word in _TOKEN.findall(text.replace("$", " ")) for piece in _CJK.split(word) if piece]
    return [NUMBER_WORDS.get(word.lower(), word.lower()) for word in words]


def _quantities(text: str) -> list[str]:
    """Numbers and mathematical terms in the order of the text, terms in the singular."""
    found: list[str] = []
    for word in _words(text):
        stems = (word, word.removesuffix("s"), word.removesuffix("es"))
        found += [word] if _is_number(word) else [stem for stem in stems if stem in TERMS][:1]
    return found


def _is_number(word: str) -> bool:
    return word[0].isdigit() or word in NUMBER_WORDS.values()


def _only_numbers(words: list[str]) -> Counter[str]:
    return Counter(word for word in words if _is_number(word))


def _numbers(text: str) -> Counter[str]:
    return _only_numbers(_words(text))


def _without_formulas(text: str) -> str:
    return MATH.sub(" , ", text)


def _long_words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]+", _without_formulas(text).lower()) if len(word) > 2]


def _script(text: str) -> str:
    """The script that most letters outside formulas belong to."""
    letters = [unicodedata.name(letter, "") for letter in _without_formulas(text) if letter.isalpha()]
    counts = Counter(script for name in letters for script in _SCRIPTS if name.startswith(script))
    return counts.most_common(1)[0][0].lower() if counts else "none"
