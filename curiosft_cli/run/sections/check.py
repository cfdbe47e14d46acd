"""`[check]`: what `curiosft data check` checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curiosft_cli.run.sections.base import PAPER_BENCHMARKS, Names, Section


class CheckSettings(Section):
    depth: Literal["quick", "full"] = "full"
    """`quick`: structure, duplicates, golds and format; `full`: also token counts, contamination,
    and grades of the experts' answers (our choice)."""
    benchmarks: Names = PAPER_BENCHMARKS
    """Benchmarks whose questions must not be in the data, from `eval.data` or the hub. `[]`: no such check."""
    ngram: int = Field(13, ge=5)
    """A question is contaminated if it has this many words in a row in common with a benchmark question."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Two questions are near-duplicates from this share of common three-token pieces on (our choice)."""
    max_question_characters: int = Field(20_000, ge=1)
    """A longer question is a problem, whatever the tokenizer (our choice)."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes (our choice)."""
    show: int = Field(5, ge=1)
    """Line numbers shown for each problem; `--json` gives all (our choice)."""
