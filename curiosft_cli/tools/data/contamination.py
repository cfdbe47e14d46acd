"""Find training questions that a benchmark has too: the same tokens, a near-duplicate, or a shared run of words.

Questions are compared in one spelling of their LaTeX. A run of words that several benchmark questions have, or many
training questions, is a common phrase ("where m and n are relatively prime ...") and does not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    Hashes = np.ndarray

_SIGNS = str.maketrans({
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "·": r"\cdot ", "−": "-", "–": "-", "π": r"\pi ",
    "∞": r"\infty ", "°": r"^\circ ", "²": "^2", "³": "^3", "√": r"\sqrt ", "∈": r"\in ", "’": "'", "‘": "'",
})  # fmt: skip
_LAYOUT = re.compile(
    r"\\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|quad|qquad|text(?:bf|it|rm)?|mathrm|mathbf|mathit"
    r"|boldsymbol|operatorname|begin\{[a-z]+\*?\}|end\{[a-z]+\*?\})(?![A-Za-z])|[,;:! \[\]()\\])"
)
_ALIKE = ((re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"), (re.compile(r"\\(le|ge|ne)q(?![a-z])"), r"\\\1"))
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\\[a-z]+|\d+(?:\.\d+)?|[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+|[-+*/=<>^|!%]")
_OPERATORS = frozenset("-+*/=<>^|!%")
_PIECE = 3

Kind = Literal["same", "near", "ngram"]


@dataclass(frozen=True)
class Hit:
    """A training row whose question a benchmark has too.

    Attributes:
        row: the row's number in the data.
        benchmark: the benchmark's name.
        id: the question's id in the benchmark.
        kind: "same" tokens, a "near"-duplicate, or a shared "ngram".
        overlap: Jaccard similarity of three-token pieces; for "ngram", the share of the benchmark question's runs.
    """

    row: int
    benchmark: str
    id: str
    kind: Kind
    overlap: float


def tokens(text: str) -> list[str]:
    """Words, numbers, LaTeX commands and operators of a text, in lower case and one spelling."""
    text = _LAYOUT.sub(" ", unicodedata.normalize("NFKC", text.translate(_SIGNS))).lower()
    for pattern, replacement in _ALIKE:
        text = pattern.sub(replacement, text)
    return _TOKEN.findall(_THOUSANDS.sub("", text))


class Contamination:
    """Finds the rows that are benchmark questions: `add` every row, then read `hits`.

    Args:
        questions: (benchmark, id, question) of all questions that must not be trained on.
        ngram: length of a run in words, without operators.
        similarity: lowest Jaccard similarity of a near-duplicate.
        letters: different words of three letters or more that a run needs.
        shared: a run in more benchmark questions than this is a common phrase.
        common: a run in more training rows than this is a common phrase.
    """

    def __init__(
        self,
        questions: Iterable[tuple[str, str, str]],
        *,
        ngram: int = 13,
        similarity: float = 0.8,
        letters: int = 5,
        shared: int = 2,
        common: int = 20,
    ) -> None:
        self._ngram, self._similarity, self._letters, self._common = ngram, similarity, letters, common
        self._owners: list[list[tuple[str, str]]] = []
        self._texts: list[tuple[str, ...]] = []
        for text, owners in _distinct(questions).items():
            self._texts.append(text)
            self._owners.append(owners)
        self._runs, self._run_of, self._n_runs = self._index_runs(shared)
        self._pieces = _index_pieces(self._texts, similarity)
        self._whole = {text: index for index, text in enumerate(self._texts)}
        self._near: list[tuple[int, int, Kind, float]] = []
        self._shared: list[tuple[int, int, tuple[int, ...]]] = []
        self._rows_with: Counter[int] = Counter()

    def __len__(self) -> int:
        """Number of different benchmark questions."""
        return len(self._texts)

    def add(self, row: int, question: str) -> None:
        """Add one training question."""
        words = tokens(question)
        known = self._whole.get(tuple(words))
        alike = {known} if known is not None else set()
        if known is not None:
            self._near.append((row, known, "same", 1.0))
        for index, share in self._near_duplicates(words):
            if index not in alike:
                alike.add(index)
                self._near.append((row, index, "near", share))
        self._add_runs(row, words, alike)

    def hits(self) -> list[Hit]:
        """All hits, by row. A question of several benchmarks is one hit for each."""
        found = list(self._near)
        for row, index, runs in self._shared:
            left = [run for run in runs if self._rows_with[run] <= self._common]
            if left:
                found.append((row, index, "ngram", len(left) / self._n_runs[index]))
        return [
            Hit(row, benchmark, name, kind, round(share, 3))
            for row, index, kind, share in sorted(found, key=lambda hit: (hit[0], -hit[3]))
            for benchmark, name in self._owners[index]
        ]

    def _near_duplicates(self, words: Sequence[str]) -> Iterable[tuple[int, float]]:
        """Yield (question, similarity) of similar questions whose numbers this one has too."""
        pieces = _pieces(words)
        numbers = _numbers(words)
        for index in {index for piece in pieces for index in self._pieces.get(piece, ())}:
            theirs = _pieces(self._texts[index])
            common = len(pieces & theirs)
            share = common / (len(pieces) + len(theirs) - common)
            if share >= self._similarity and not _numbers(self._texts[index]) - numbers:
                yield index, share

    def _add_runs(self, row: int, words: Sequence[str], alike: set[int]) -> None:
        import numpy as np

        runs = np.unique(_runs(words, self._ngram, self._letters))
        if not len(runs) or not len(self._runs):
            return
        start = np.searchsorted(self._runs, runs, "left")
        end = np.searchsorted(self._runs, runs, "right")
        of: dict[int, list[int]] = defaultdict(list)
        for run, first, last in zip(runs.tolist(), start.tolist(), end.tolist(), strict=True):
            if last > first:
                self._rows_with[run] += 1
                for index in self._run_of[first:last].tolist():
                    of[index].append(run)
        self._shared += [(row, index, tuple(found)) for index, found in of.items() if index not in alike]

    def _index_runs(self, shared: int) -> tuple[Hashes, Hashes, list[int]]:
        """Hashes of the runs in ascending order, the question of each, and the number of runs per question."""
        import numpy as np

        each = [np.unique(_runs(text, self._ngram, self._letters)) for text in self._texts]
        runs = np.concatenate(each) if each else np.empty(0, np.int64)
        owners = np.repeat(np.arange(len(each)), [len(found) for found in each])
        order = np.argsort(runs, kind="stable")
        runs, owners = runs[order], owners[order]
        _, inverse, counts = np.unique(runs, return_inverse=True, return_counts=True)
        kept = counts[inverse] <= shared if len(runs) else np.empty(0, bool)
        return runs[kept], owners[kept], [max(1, len(found)) for found in each]


def _distinct(questions: Iterable[tuple[str, str, str]]) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """One entry per different text, since benchmarks overlap: a question in two of them is no common phrase."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for benchmark, name, question in questions:
        if text := tuple(tokens(question)):
            found.setdefault(text, []).append((benchmark, name))
    return found


def _runs(words: Sequence[str], ngram: int, letters: int) -> Hashes:
    """Hashes of the runs of `ngram` words that have enough real words."""
    import numpy as np

    words = [word for word in words if word not in _OPERATORS]
    runs = [tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)]
    return np.array([hash(run) for run in runs if len({w for w in run if _is_word(w)}) >= letters], np.int64)


def _is_word(token: str) -> bool:
    return (len(token) >= 3 and token.isalpha()) or "\u3040" <= token[0] <= "\u9fff"


def _pieces(words: Sequence[str]) -> set[int]:
    """Hashes of the three-token pieces, or of the whole text if it is shorter."""
    return {hash(tuple(words[at : at + _PIECE])) for at in range(max(1, len(words) - _PIECE + 1))}


def _numbers(words: Sequence[str]) -> Counter[str]:
    return Counter(word for word in words if word[0].isdigit())


def _index_pieces(texts: Sequence[Sequence[str]], similarity: float) -> dict[int, list[int]]:
    """Piece -> questions, for the rarest pieces of each question.

    A text with Jaccard similarity s to a question of n pieces has at least ceil(s n) of them. So it has at least one of
    any n - ceil(s n) + 1 pieces, and an index of these misses nothing. The rarest ones have short lists.
    """
    import numpy as np

    if not texts:
        return {}
    each = [_pieces(text) for text in texts]
    hashes, counts = np.unique(np.concatenate([np.fromiter(p, np.int64, len(p)) for p in each]), return_counts=True)
    index: dict[int, list[int]] = {}
    for question, pieces in enumerate(each):
        mine = np.fromiter(pieces, np.int64, len(pieces))
        rarest = mine[np.argsort(counts[np.searchsorted(hashes, mine)], kind="stable")]
        for piece in rarest[: len(mine) - ceil(similarity * len(mine)) + 1].tolist():
            index.setdefault(piece, []).append(question)
    return index
