"""What every section of the configuration shares.

Every field's docstring becomes its description in the JSON schema and in docs/configuration.md.
Defaults are the paper's (Tables 5 and 6, Section 5) unless the docstring says "our choice".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

# One name may be given without brackets: data.train=questions.jsonl.
OneOrMore = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
Names = Annotated[tuple[str, ...], OneOrMore]

Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """Base of all sections: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Stage = Literal["rephrase", "sft", "rl", "eval"]
Precision = Literal["auto", "float32", "bfloat16"]
