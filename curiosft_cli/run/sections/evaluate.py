"""`[eval]`: sampling and grading benchmarks."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from curiosft_cli.run.address import Address, VariableName
from curiosft_cli.run.sections.base import (
    COMPARABLE,
    DECIDES_CURVE,
    PAPER_BENCHMARKS,
    REOPENS_EVALUATION,
    RESUME_FREE,
    FolderName,
    Name,
    Names,
    Precision,
    Section,
    Some,
    SomeNames,
)


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError("a benchmark's name has at most 64 letters, digits, - and _, a letter or digit first")
    return name


BenchmarkName = Annotated[str, AfterValidator(_folder_name)]
Count = Annotated[int, Field(ge=1)]


class OwnBenchmark(Section):
    kind: Literal["auto", "math", "choice"] = "auto"
    """Answers: `math` is free-form, `choice` a letter. `auto`: what the first row has (our choice)."""
    samples: int = Field(8, ge=1)
    """Samples per question; `eval.samples` comes before it."""
    question: Name | None = None
    """Column of the question. None: `question`, `problem`, `prompt` or `messages`."""
    answer: Name | None = None
    """Column of the gold. None: `answer`, `gold`, `ground_truth` or `reward_model`."""
    choices: Names = ()
    """Column with the list of choices; or one column for each choice, in the order A, B, C. Empty: `choices`, or lines
    `A) ...` at the end of the question."""


class Eval(Section):
    name: Annotated[FolderName, COMPARABLE] = "eval"
    """Folder of the results inside the run; use another name for other sampling settings."""
    checkpoints: Annotated[SomeNames, REOPENS_EVALUATION, COMPARABLE] = ("sft",)
    """Checkpoints: `base`, `sft`, `sft@300`, `sft@best`, `rl`, `OTHER-RUN:sft`, a folder or a hub id."""
    benchmarks: Annotated[SomeNames, REOPENS_EVALUATION, COMPARABLE] = PAPER_BENCHMARKS
    """Benchmarks by name (`arithmetic` is the test set of the built-in generator), also your own with a file in
    `data`."""
    data: Annotated[dict[BenchmarkName, str], DECIDES_CURVE, COMPARABLE] = Field(default_factory=dict)
    """A local file for a benchmark, in place of the hub: `eval.data.aime24=aime24.jsonl`; or the file of a benchmark of
    your own: `eval.data.mine=bench.csv` (JSONL, JSON, CSV, parquet)."""
    bench: Annotated[dict[BenchmarkName, OwnBenchmark], DECIDES_CURVE, COMPARABLE] = Field(default_factory=dict)
    """Benchmarks of your own: `[eval.bench.mine]` with `kind`, `samples`, `question`, `answer` and `choices`."""
    keep_system: Annotated[bool, DECIDES_CURVE] = False
    """Use the system messages of the file (verl layout) in place of `model.system_prompt` (our choice)."""
    contamination: Annotated[str | None, COMPARABLE] = None
    """Report of `curiosft data check --json` on the training data; the summaries then also have scores without the
    questions that are in the training data. None: scores on all questions only (our choice)."""
    samples: Annotated[int | None, REOPENS_EVALUATION, COMPARABLE] = Field(None, ge=1)
    """Samples per question. None: the benchmark's own number (8; 1 for mmlu_pro)."""
    limit: Annotated[int | None, REOPENS_EVALUATION, COMPARABLE] = Field(None, ge=1)
    """Use only the first questions of each benchmark; the result records it. None: all."""
    temperature: Annotated[float, DECIDES_CURVE] = Field(0.6, ge=0, le=2)
    """Sampling temperature (Section 5); 2 is vLLM's limit."""
    top_p: Annotated[float, DECIDES_CURVE] = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Section 5)."""
    max_completion_length: Annotated[int, DECIDES_CURVE] = Field(8192, ge=1)
    """Longest completion in tokens."""
    max_prompt_length: Annotated[int | None, DECIDES_CURVE] = Field(None, ge=1)
    """Longest prompt in tokens; a longer one is not sent, scores 0 and is counted. None: all must fit (our choice)."""
    pass_k: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=1)], ...], Some] | None, REOPENS_EVALUATION, COMPARABLE
    ] = None
    """Each k of the Pass@k columns, at most `samples`. None: the powers of two up to `samples`, and `samples`."""
    entropy_samples: Annotated[int, REOPENS_EVALUATION, DECIDES_CURVE, COMPARABLE] = Field(1, ge=0)
    """Completions per question for the teacher-forced entropy; 0: do not measure it (our choice)."""
    grader: Annotated[Literal["curiosft", "official"], REOPENS_EVALUATION, DECIDES_CURVE] = "curiosft"
    """`curiosft`: our grader; `official`: a reproduction of the authors' graders."""
    engine: Literal["auto", "vllm", "transformers", "openai"] = "auto"
    """Engine that samples; `auto` is vLLM where it is installed, else transformers; `openai` is the endpoint at
    `base_url`."""
    endpoint: Literal["completions", "chat"] = "completions"
    """What the endpoint takes: `completions` sends prompts of token ids (vLLM's server), `chat` sends messages, as all
    providers take them. A chat has no prefill, and the checkpoint need not be on this machine (our choice)."""
    base_url: Annotated[Address | None, COMPARABLE] = None
    """Address of an OpenAI-compatible endpoint that serves the model, e.g. http://127.0.0.1:8000/v1."""
    endpoint_model: Annotated[str | None, COMPARABLE] = None
    """Name of the model at the endpoint. None: the checkpoint's path."""
    api_key_env: Annotated[VariableName, RESUME_FREE] = "OPENAI_API_KEY"
    """Environment variable with the key of the endpoint (our choice)."""
    concurrency: Annotated[int, RESUME_FREE] = Field(64, ge=1)
    """Requests to the endpoint at the same time (our choice)."""
    request_timeout_s: Annotated[float, RESUME_FREE] = Field(1800.0, gt=0)
    """Longest time without a byte from the endpoint within a request, in seconds (our choice)."""
    precision: Precision = "auto"
    """Precision of the engine."""
    kv_cache_gib: Annotated[float, RESUME_FREE] = Field(1.0, gt=0)
    """Key-value cache of the engine on a CPU, in GiB; on a GPU the engine chooses it (our choice)."""
    vllm: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further settings of vLLM under their vLLM names: `eval.vllm.tensor_parallel_size=4` spreads a model over four
    GPUs (our choice)."""
    copies: Annotated[int | None, RESUME_FREE] = Field(None, ge=1)
    """Copies of the model that sample at the same time, through vLLM's data parallelism. It changes the time, not the
    samples. None: as many as the GPUs hold, or one on a CPU (our choice)."""
    gpu_memory_utilization: Annotated[float, RESUME_FREE] = Field(0.9, gt=0, le=1)
    """Share of GPU memory for the engine (vLLM's default)."""
    grader_workers: Annotated[int, RESUME_FREE] = Field(2, ge=1)
    """Grader processes (our choice)."""
