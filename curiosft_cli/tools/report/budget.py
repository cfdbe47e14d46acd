"""What goes into the page packed, and how it is cut to a size."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

from curiosft_cli.run.text import plain


def packed(value: Any) -> str:
    """JSON, gzip, base64: the page unpacks it when it is asked for."""
    return base64.b64encode(gzip.compress(json.dumps(value, ensure_ascii=False).encode(), mtime=0)).decode()


def fitting(make: Callable[[int], Any], longest: int, most_bytes: int, shortest: int) -> tuple[str, int]:
    """`make(length)`, packed, with the first length of `longest`, its half, ... that fits; and that length.

    Args:
        make: what is packed, of texts of at most this length.
        most_bytes: of the packed value.
        shortest: no length is below this; then the value may be larger.
    """
    while True:
        value = packed(make(longest))
        if len(value) <= most_bytes or longest <= shortest:
            return value, longest
        longest = max(shortest, longest // 2)


def cut(text: str, longest: int) -> str:
    """The text as a page may show it. Of a longer one the first two thirds and the end, where the answer stands."""
    if len(text) > longest:
        end = longest // 3
        left_out = len(text) - longest
        text = f"{text[: longest - end]}\n[... {left_out:,} characters left out ...]\n{text[-end:]}"
    return plain(text)
