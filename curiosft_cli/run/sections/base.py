"""What every section of the configuration shares.

The docstring of a field becomes its description in the JSON schema and in docs/configuration.md.
Defaults are the paper's (Tables 5 and 6, Section 5) unless the docstring says "our choice".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from curiosft_cli.run.text import shortened


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"{shortened(Counter(names).most_common(1)[0][0])} is in it twice")
    return names


# One name may be given without brackets: data.train=questions.jsonl.
OneOrMore = BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,))
EachOnce = AfterValidator(_each_once)
Some = Field(min_length=1)
Name = Annotated[str, Some]
Sources = Annotated[tuple[Name, ...], OneOrMore]
Names = Annotated[tuple[Name, ...], OneOrMore, EachOnce]
SomeNames = Annotated[tuple[Name, ...], Some, OneOrMore, EachOnce]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

Stage = Literal["rephrase", "sft", "rl", "eval"]
OTHER_FOLDERS = ("rephrase", "sft", "rl", "rl-preflight")
"""Folders of a run that no evaluation may have."""
Precision = Literal["auto", "float32", "bfloat16"]

PAPER_BENCHMARKS = (
    *("aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"),
    *("gpqa_diamond", "arc_challenge", "mmlu_pro"),
)


class Section(BaseModel):
    """Base of all sections: immutable; a key that does not exist is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


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
