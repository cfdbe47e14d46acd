"""Text of models, files and users for people to read: shown as it is, and never obeyed by a terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, TextIO

# Controls (ANSI escapes begin with one), signs that reorder or hide text, line separators, half surrogate pairs, tags.
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def plain(text: str) -> str:
    r"""The text with escapes (`\u001b`) in place of what a terminal obeys. JSON keeps its meaning."""
    return OBEYED.sub(lambda found: json.dumps(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""`plain` text, with `\n` and `\t` in place of line breaks and tabs."""
    return plain(text).replace("\n", r"\n").replace("\t", r"\t")


def show(text: str, file: TextIO | None = None, end: str = "\n") -> None:
    """Print `plain` text, to stdout if no file is given. Everything that the package prints goes through here."""
    print(plain(text), file=file or sys.stdout, end=end, flush=file is not None)


def shortened(value: Any, longest: int = 80) -> str:
    """The `repr` of a value that a user gave, cut in the middle; for messages."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of more than 4,300 digits"  # Python prints none
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]} ({len(text):,} characters)"
