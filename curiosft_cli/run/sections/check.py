"""`[check]`: what `curiosft data check` looks at."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, Section


class Check(Section):
    depth: Literal["quick", "full"] = "full"
    """`quick`: structure, duplicates, golds and format; `full`: also token counts, contamination,
    and the experts' answers graded (our choice)."""
    benchmarks: Names = (
        "aime24",
        "aime25",
        "amc",
        "math500",
        "minerva",
        "olympiadbench",
        "gpqa_diamond",
        "arc_challenge",
        "mmlu_pro",
    )
    """Benchmarks whose questions must not be in the data, from `eval.data` or the hub; `[]` looks for none."""
    ngram: int = Field(13, ge=5)
    """Words in a row that make a question contaminated when a benchmark question has them too."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Share of common three-token pieces from which two questions are near-duplicates (our choice)."""
    max_question_characters: int = Field(20_000, ge=1)
    """Longer questions are a problem, whatever the tokenizer (our choice)."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes (our choice)."""
    show: int = Field(5, ge=1)
    """Line numbers shown for each problem; `--json` gives all (our choice)."""
