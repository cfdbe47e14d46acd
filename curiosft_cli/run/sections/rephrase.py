"""`[rephrase]`: cleaning questions through a chat API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curiosft_cli.run.address import AddressOrLocal, VariableName
from curiosft_cli.run.sections.base import RESUME_FREE, Section, Sources


class Rephrase(Section):
    data: Sources = ()
    """Questions to clean; sources as in `data.train`. Empty: `data.train`, or `raw` where that names cleaned
    questions (`authors`, `rephrase`)."""
    base_url: AddressOrLocal = "https://api.deepseek.com"
    """OpenAI-compatible endpoint; `local` serves `model.path` with vLLM on this machine while the stage runs;
    `demonstration` is a script in place of a model, for the built-in `arithmetic-forum` posts only."""
    model: str = "deepseek-chat"
    """Model name at the endpoint (the paper uses DeepSeek-V3)."""
    api_key_env: Annotated[VariableName, RESUME_FREE] = "DEEPSEEK_API_KEY"
    """Environment variable with the key; the key itself is never stored or printed."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature (our choice: the cleaned question should not vary)."""
    retry_temperature: Annotated[float, RESUME_FREE] = Field(0.7, ge=0, le=2)
    """Sampling temperature of `--retry-refused`: at 0, a model mostly writes what was refused (our choice)."""
    max_completion_length: int = Field(2048, ge=1)
    """Longest answer in tokens; an answer that is cut there is requested again with twice as many (our choice)."""
    concurrency: Annotated[int, RESUME_FREE] = Field(64, ge=1, le=4096)
    """Requests at the same time (our choice)."""
    timeout_s: Annotated[float, RESUME_FREE] = Field(120.0, gt=0)
    """Longest wait for one request, in seconds (our choice)."""
    max_attempts: Annotated[int, RESUME_FREE] = Field(6, ge=1)
    """Attempts for one request. After the last one its question stays as it was; three such requests in a row stop the
    run (our choice)."""
    second_attempt: bool = True
    """Send a stricter second request when an answer is refused (our choice)."""
    verify: Literal["model", "off"] = "model"
    """Who judges a rewrite that no rule can accept or refuse: `model` sends a second question to a model; with `off`
    the original stays (our choice)."""
    verify_model: str = ""
    """Model name of the verifier at the same endpoint. Empty: `model`. `local` uses its own model (our choice)."""
    budget_usd: Annotated[float | None, RESUME_FREE] = Field(None, gt=0)
    """Stop before the cost of all runs of this stage exceeds this, in US dollars. None: no limit."""
    max_requests: Annotated[int | None, RESUME_FREE] = Field(None, ge=1)
    """Stop after this many requests over all runs of this stage, repeated ones included. None: no limit."""
    input_usd_per_million: Annotated[float | None, RESUME_FREE] = Field(None, ge=0)
    """Price of a million prompt tokens in US dollars. None: the price in the built-in table, which has the list prices
    of DeepSeek and OpenAI of September 2025 and is not kept up to date."""
    output_usd_per_million: Annotated[float | None, RESUME_FREE] = Field(None, ge=0)
    """Price of a million answer tokens in US dollars. None: the price in the built-in table."""
    tokenizer: Annotated[str, RESUME_FREE] = "deepseek-ai/DeepSeek-V3"
    """Tokenizer with which `--dry-run` counts: a folder or file with `tokenizer.json`, or a hub id; `local` is the
    tokenizer of `model.path`."""
