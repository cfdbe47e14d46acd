"""`[eval]`: sampling and grading benchmarks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, Precision, Section


class Eval(Section):
    name: str = Field("eval", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the results inside the run; one set of sampling settings has one name."""
    checkpoints: Names = ("sft",)
    """References: `base`, `sft`, `sft@300`, `sft@best`, `rl`, `OTHER-RUN:sft`, a folder or a hub id."""
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
    """Benchmarks by name (`arithmetic` is the built-in generator's test set)."""
    data: dict[str, str] = Field(default_factory=dict)
    """Local file per benchmark, in place of the hub: `eval.data.aime24=aime24.jsonl`."""
    keep_system: bool = False
    """A file's own system messages (verl layout) in place of `model.system_prompt` (our choice)."""
    contamination: str | None = None
    """Report of `curiosft data check --json` on the training data: the summaries also hold the scores of the
    questions that the data does not have. None reports all questions only (our choice)."""
    samples: int | None = Field(None, ge=1)
    """Samples per question; none is the benchmark's own (8; 1 for mmlu_pro)."""
    limit: int | None = Field(None, ge=1)
    """First questions of each benchmark only; recorded in the result. None is all."""
    temperature: float = Field(0.6, ge=0, le=2)
    """Sampling temperature (Section 5); vLLM takes no more than 2."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Section 5)."""
    max_completion_length: int = Field(8192, ge=1)
    """Longest completion in tokens."""
    max_prompt_length: int | None = Field(None, ge=1)
    """Longest prompt in tokens; a longer one is not sent, scores 0 and is counted. None: all must fit (our choice)."""
    pass_k: tuple[int, ...] | None = None
    """k of the Pass@k columns, none above `samples`; none is the powers of two up to `samples`, and `samples`."""
    entropy_samples: int = Field(1, ge=0)
    """Completions per question for the teacher-forced entropy; 0 switches it off (our choice)."""
    grader: Literal["curiosft", "official"] = "curiosft"
    """Ours, or a reproduction of the authors' graders."""
    engine: Literal["auto", "vllm", "transformers", "openai"] = "auto"
    """Who samples: vLLM where it is installed, else transformers; `openai` is the endpoint at `base_url`."""
    endpoint: Literal["completions", "chat"] = "completions"
    """What that endpoint takes: prompts of token ids (vLLM's server), or chats as every provider does. A chat has no
    prefill, and the checkpoint need not be here (our choice)."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint that serves the model, e.g. http://127.0.0.1:8000/v1."""
    endpoint_model: str | None = None
    """The model's name at that endpoint; none is the checkpoint's path."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with that endpoint's key (our choice)."""
    concurrency: int = Field(64, ge=1)
    """Requests in flight at that endpoint (our choice)."""
    request_timeout_s: float = Field(1800.0, gt=0)
    """Longest silence of that endpoint within a request, in seconds (our choice)."""
    precision: Precision = "auto"
    """Precision of the engine."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """As `rl.kv_cache_gib`."""
    vllm: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further settings of the embedded vLLM by their names there: `eval.vllm.tensor_parallel_size=4` for a model over
    four GPUs (our choice)."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of GPU memory that the engine may take (vLLM's default)."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes (our choice)."""
