"""Whether a piece at the start of a post is only a label: a number, a source, points. No language is known."""

from __future__ import annotations

import re

from curiosft_cli.stages.rephrase.judge.normalise import Token, kind

# A shape has one sign a token: 9 is a number, Y a year, w a word, a a letter (W and A with a capital), c a sign of a
# script without spaces; everything else stands for itself. `Problem 3. (10 points)` is `W9.(9w)`.
SHAPES = {"number": "9", "word": "w", "letter": "a", "character": "c", "command": "\\"}
YEAR = re.compile(r"1[5-9]\d\d|20\d\d")
NUMBERED = r"#?(?:A[.-]?)?[9Y][Aa]?(?:[.-]9)*c{0,2}(?![9Yc])"
NAMED = rf"(?:[WwA]\.?|c{{1,3}}){NUMBERED}"
POINTS = r"[(\[](?:9(?:-9)?(?:[Ww]{0,2}|[Aa]|c{1,2})\.?|c{1,6}9c{0,2})[)\]]"
SOURCE = r"[(\[](?:(?=[^)\]]*9)(?=[^)\]]*W)(?![^)\]]*w)|(?=[^)\]]*Y)(?![^)\]]*ww))[WwAac9Y,*#/?.:-]+[)\]]"
OTHERS = rf"(?:(?:{NUMBERED}(?:\.w(?=\.))?|(?:[Ww][.,]|c、)?{POINTS}|{SOURCE})[*.,:;)、—-]*)*"
LABEL = re.compile(rf"#*{OTHERS}(?:{NAMED}[*.,:;)、—-]*)?{OTHERS}")
# A line with a year or some names in it, without the words of a sentence; and a source with a year behind the last one.
HEADLINE = re.compile(r"(?=.*Y|(?=.*9)(?:.*[WA]){3})(?!.*ww)[WwAa9Y,.:*#/()\[\]'-]+[.?!;]?")
CREDIT = r"\((?:A\.)+W\)|\(9w[WA]+\)|\[a\](?!.*ww)[WwAa9Y,.#]+\[/a\]"  # `(A. Word)`, `(6th IMO)`, `[i]By Word[/i]`
TAIL = re.compile(rf".?\.?(?:(?<=[.?!])(?=[^)]*Y)(?=[^)]*W)(?![^)]*ww){SOURCE}|{CREDIT})?[.,;:\"]*")


def is_label(post: str, old: list[Token], end: int, longest: int = 24, bare: int = 16, preposition: int = 3) -> bool:
    """Whether the post's first tokens, up to `end` and at most `longest` (our choice), say nothing of the problem.

    A label has a number, no sign of a formula, and no name that the problem uses: `Word 3.`, `[Word 2011, #4]`.
    """
    label, rest = (shape(post, part) for part in (old[:end], old[end:]))
    names = {token.text for sign, token in zip(label, old, strict=False) if sign in "WAa"}
    gap, problem = post[old[end - 1].end : old[end].start], post[old[end].start :]
    new_line, stop = "\n" in gap, (label.rstrip("*") or "*")[-1]
    if end > longest or any(token.text in names for token in old[end:]) or (problem[0].islower() and not new_line):
        return False
    if LABEL.fullmatch(label):
        # `Radius 5. Find the area.` looks like a label too: then what is left can stand alone.
        is_bare = len(rest) <= bare and not re.search(r"[\d$\\=]", problem)
        if label[0] in "WwAc" and (is_bare or re.match(rf"{NAMED}[.,:;](?!9)", rest)):
            return False
        if new_line or stop in ".:、" or (stop == ")" and "(" not in label):
            return new_line or rest[0] not in "9Y"  # `0.5 kg`
        is_weak = re.search(r"[-—]$|^(?:W9-9|(?:A-?)?9(?:[.-]9)?)$|[(\[][9Y][)\]]$", label) or ("c" in label and gap)
        is_weak = is_weak or (label == "W9" and len(old[0].text) > preposition)
        # `3 - X`, `(3)X` and `Given 3 points` begin like labels.
        return bool(re.match(r"[WwAac]{2}|W\\", rest)) if is_weak else stop in ")]"
    if not HEADLINE.fullmatch(label) or ("Y" in rest and stop not in "9Y"):  # then years are what the problem is about
        return False
    return new_line or ("Y" in label and bool(gap) and bool(re.search(r"[9Y].*[9Y]\.?$", label)))


def shape(post: str, piece: list[Token]) -> str:
    """One sign a token, as above."""
    signs = ("Y" if YEAR.fullmatch(token.text) else SHAPES.get(kind(token.text), token.text[0]) for token in piece)
    return "".join(s.upper() if post[token.start].isupper() else s for s, token in zip(signs, piece, strict=True))
