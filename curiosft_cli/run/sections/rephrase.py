"""`[rephrase]`: cleaning questions through a chat API."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, Section


class Rephrase(Section):
    data: Names = ()
    """Questions to clean: sources as in `data.train`; empty uses `data.train`."""
    base_url: str = "https://api.deepseek.com"
    """OpenAI-compatible endpoint; `local` serves `model.path` with vLLM on this machine while the stage runs."""
    model: str = "deepseek-chat"
    """Model name at the endpoint (the paper uses DeepSeek-V3)."""
    api_key_env: str = Field("DEEPSEEK_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; the key itself is never stored or printed."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature (our choice: the cleaned question should not vary)."""
    max_completion_length: int = Field(2048, ge=1)
    """Longest answer in tokens (our choice); one that is cut there is asked again with twice as many."""
    concurrency: int = Field(64, ge=1, le=4096)
    """Requests in flight (our choice)."""
    timeout_s: float = Field(120.0, gt=0)
    """Longest wait for one request, in seconds (our choice)."""
    max_attempts: int = Field(6, ge=1)
    """Tries of one request; then its question is kept as it was, and three such in a row stop the run (our choice)."""
    second_attempt: bool = True
    """Ask once more, more strictly, when an answer is refused (our choice)."""
    verify: Literal["model", "off"] = "model"
    """Who judges a rewrite that no rule can accept or refuse: a second question to a model, or nobody; then the
    original stays (our choice)."""
    verify_model: str = ""
    """Model name of the verifier at the same endpoint; empty uses `model`, and `local` always does (our choice)."""
    budget_usd: float | None = Field(None, gt=0)
    """Stop before the cost goes beyond this, in US dollars over all runs of this stage; `none` has no limit."""
    max_requests: int | None = Field(None, ge=1)
    """Stop after this many requests over all runs of this stage, repeated ones included; `none` has no limit."""
    input_usd_per_million: float | None = Field(None, ge=0)
    """Price of a million prompt tokens in US dollars; `none` takes the built-in table's: DeepSeek's and OpenAI's list
    prices of September 2025, which are not kept up to date."""
    output_usd_per_million: float | None = Field(None, ge=0)
    """Price of a million answer tokens in US dollars; `none` takes the built-in table's."""
    tokenizer: str = "deepseek-ai/DeepSeek-V3"
    """What `--dry-run` counts tokens with: a folder or file with `tokenizer.json`, or a hub id; `local` counts with
    `model.path`'s."""
