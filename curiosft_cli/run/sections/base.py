"""What every section of the configuration shares.

The docstring of a field becomes its description in the JSON schema and in docs/configuration.md.
Defaults are the paper's (Tables 5 and 6, Section 5) unless the docstring says "our choice".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

# One name may be given without brackets: data.train=questions.jsonl.
OneOrMore = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
Names = Annotated[tuple[str, ...], OneOrMore]

Stage = Literal["rephrase", "sft", "rl", "eval"]
OTHER_FOLDERS = ("rephrase", "sft", "rl", "rl-preflight")
"""Folders of a run that no evaluation may have."""
Precision = Literal["auto", "float32", "bfloat16"]

PAPER_BENCHMARKS = (
    *("aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"),
    *("gpqa_diamond", "arc_challenge", "mmlu_pro"),
)


class Section(BaseModel):
    """Base of all sections: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Policy:
    """What a changed value means for results that exist already. A key carries its policies in `Annotated`.

    A key without a policy decides the results of each stage that reads it: the stage refuses another value.
    """

    meaning: str


RESUME_FREE = Policy("The value may change between two halves of a run. No result depends on it.")
REOPENS_EVALUATION = Policy("Saved samples do not depend on it. A complete evaluation makes what is missing.")
DECIDES_CURVE = Policy("The scores between training steps depend on it as well.")
COMPARABLE = Policy("Two results with different values are compared without a remark.")
