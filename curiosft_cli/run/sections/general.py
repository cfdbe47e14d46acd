"""The sections that every stage reads: the run, the model, the data, the launch and the log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curiosft_cli.run.sections.base import Names, OneOrMore, Section

Stage = Literal["rephrase", "sft", "rl", "eval"]


class Run(Section):
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; its folder is `root/name`."""
    root: str = "runs"
    """Folder that holds the runs (our choice)."""
    stages: tuple[Stage, ...] = ("sft", "rl", "eval")
    """What `curiosft run` does, in this order."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of data order, sampling and initialisation (our choice)."""
    fidelity: Literal["default", "paper", "official"] = "default"
    """Reading of the method: ours, the paper to the letter, or the authors' code. See docs/deviations.md."""


class Model(Section):
    path: str = "Qwen/Qwen2.5-Math-7B"
    """Base model: a hub id or a folder (the paper's backbone)."""
    revision: str | None = None
    """Hub revision; none is the hub's default branch."""
    system_prompt: str | None = None
    """System message; none is the paper's Table 7, "" is no system message."""
    question_prefix: str = "Here is the question: "
    """What the user message puts before the question (Table 7)."""
    prefill: str = "<think>\n"
    """Text that the prompt supplies at the start of the completion (Table 7); "" for none."""
    max_position_embeddings: int | None = Field(None, ge=1)
    """Context length in tokens to set on the model; none keeps its own."""
    rope_theta: float | None = Field(None, gt=0)
    """RoPE base to set on the model; none keeps its own."""
    attention: Literal["auto", "sdpa", "packed_sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention of the trainer; `auto` is FlashAttention where installed on a GPU, else SDPA row by row."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""


class Data(Section):
    train: Names = ("Elliott/Openr1-Math-46k-8192",)
    """Training data: files (JSONL, JSON, parquet), hub ids, `rephrase` (this run's cleaned questions),
    or `arithmetic:SPLIT:ROWS[:SEED]` (the built-in generator). Several are concatenated in this order."""
    validation: Names = ()
    """Held-out rows, sources as in `train`; looked at every `sft.eval_steps` steps (our choice)."""
    max_prompt_length: int = Field(1024, ge=1)
    """Longest prompt in tokens; longer rows are counted, listed and left out."""
    rows: int | None = Field(None, ge=1)
    """Use only the first rows; none uses all (our choice)."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be read stops the run, or is counted and listed (our choice)."""


class Launch(Section):
    processes: int | None = Field(None, ge=0)
    """Training processes through accelerate; 0 trains inside the command (tests, debugger);
    none is one per GPU, or one on CPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each process (OMP_NUM_THREADS); none takes it from the environment,
    or shares the cores among the processes."""


class Log(Section):
    trackers: Annotated[tuple[Literal["wandb", "tensorboard", "trackio"], ...], OneOrMore] = ()
    """Trackers beside metrics.jsonl, through accelerate; each must be installed."""
    every: int = Field(1, ge=1)
    """Optimizer steps between metric lines."""
