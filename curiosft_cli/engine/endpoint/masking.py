"""Hide an endpoint's key in what the endpoint says."""

from __future__ import annotations

import base64
from string import ascii_lowercase, ascii_uppercase
from typing import Any
from urllib.parse import quote

MASK = "***"
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # unlike lower(), it keeps the length of every text


class KeyMask:
    """Puts `***` where a text has `window` characters of the key in a row, in any case.

    The key counts as it is, reversed, in base64, in hexadecimal, and escaped for an address.

    Args:
        key: "" for none. A shorter key than `shortest` is a placeholder such as EMPTY, and no secret.
        window: characters in a row that give a key away (our choice).
        shortest: characters of the shortest secret (our choice).
    """

    def __init__(self, key: str, window: int = 8, shortest: int = 6) -> None:
        raw = key.encode()
        # Three shifts: base64 writes a key in three ways, by its place in what is encoded.
        encoded = [base64.b64encode(bytes(shift) + raw).decode().rstrip("=") for shift in range(3)]
        encoded += [form.translate(str.maketrans("+/", "-_")) for form in encoded]
        forms = [key, *encoded, raw.hex(), quote(key, "")]
        self._window = min(window, len(key))
        self._pieces = {
            one[start : start + self._window]
            for form in (forms if len(key) >= shortest else ())
            for one in (form.translate(LOWER), form.translate(LOWER)[::-1])
            for start in range(len(one) - self._window + 1)
        }

    def text(self, text: str) -> str:
        """The text without the key."""
        folded, window = text.translate(LOWER), self._window
        starts = [at for at in range(len(text) - window + 1) if folded[at : at + window] in self._pieces]
        parts, end = [], 0
        for start in starts if self._pieces else ():
            if start >= end:
                parts += [text[end:start], MASK]
            end = start + window
        return "".join([*parts, text[end:]])

    def json(self, value: Any) -> Any:
        """A value of JSON with all its texts, and the names in its objects, without the key."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(entry) for entry in value]
        if isinstance(value, dict):
            return {self.text(name): self.json(entry) for name, entry in value.items()}
        return value
