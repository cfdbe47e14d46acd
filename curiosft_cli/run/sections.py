"""The sections of the configuration: what may be set, its unit, its default, and where the default comes from.

Every field's docstring becomes its description in the JSON schema and in docs/configuration.md.
Defaults are the paper's (Tables 5 and 6, Section 5) unless the docstring says "our choice".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# One name may be given without brackets: data.train=questions.jsonl.
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class Section(BaseModel):
    """Base of all sections: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Stage = Literal["rephrase", "sft", "rl", "eval"]
Precision = Literal["auto", "float32", "bfloat16"]


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
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation of the trainer; `auto` is FlashAttention where installed on a GPU, else SDPA."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""


class Data(Section):
    train: Names = ("Elliott/Openr1-Math-46k-8192",)
    """Training data: files (JSONL, JSON, parquet), hub ids, `rephrase` (this run's cleaned questions),
    or `arithmetic:SPLIT:ROWS[:SEED]` (the built-in generator). Several are concatenated in this order."""
    max_prompt_length: int = Field(1024, ge=1)
    """Longest prompt in tokens; longer rows are counted, listed and left out."""
    rows: int | None = Field(None, ge=1)
    """Use only the first rows; none uses all (our choice)."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be read stops the run, or is counted and listed (our choice)."""


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
    """Longest answer in tokens (our choice)."""
    concurrency: int = Field(64, ge=1, le=4096)
    """Requests in flight (our choice)."""
    timeout_s: float = Field(120.0, gt=0)
    """Longest wait for one request, in seconds (our choice)."""
    max_attempts: int = Field(6, ge=1)
    """Tries of one request; then its question is kept as it was, and three such in a row stop the run (our choice)."""
    second_attempt: bool = True
    """Ask once more, more strictly, when an answer fails the checks (our choice)."""


class Teacher(Section):
    kind: Literal["ema", "self"] = "ema"
    """`ema`: a slowly synchronised copy (Algorithm 1); `self`: the student itself (ablation)."""
    student_weight: float = Field(0.99, gt=0, le=1)
    """Weight of the student in each synchronisation (mu of Algorithm 1, line 17)."""
    sync_every: int = Field(5, ge=1)
    """Optimizer steps between synchronisations (n of Algorithm 1)."""
    tau_mode: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: temperature per token from its entropy (Eq. 8); `fixed`: `tau_fixed` (ablation)."""
    tau_fixed: float = Field(1.3, gt=0)
    """Temperature of the fixed ablation."""
    h_pivot: float = 1.2
    """Entropy in nats at which the increment is half of `delta_max` (Eq. 7)."""
    gamma: float = Field(2.0, gt=0)
    """Steepness of the increment, per nat (Eq. 7)."""
    delta_max: float = Field(0.5, ge=0)
    """Largest entropy increment in nats (Eq. 7)."""
    tau_min: float = Field(1.1, gt=0)
    """Lowest temperature."""
    tau_max: float = Field(1.5, gt=0)
    """Highest temperature."""
    topk: int = Field(512, ge=2)
    """Logits that the entropy of the search is taken over (Appendix D)."""
    low_entropy_guard: float | None = Field(0.03, ge=0)
    """Full-vocabulary entropy in nats at or below which the temperature is `tau_min`
    (the authors' code; none is the paper's text)."""
    search: Literal["newton", "bisect"] = "newton"
    """How Eq. 8 is solved; both reach the same temperature (our choice)."""
    iters: int = Field(20, ge=1)
    """Halvings of the bisection."""


class Sft(Section):
    objective: str = "curio"
    """sft, entropy, entropy_top, kl, gem, dft, psft or curio."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The objective's own parameters (its function's keyword arguments), e.g. `alpha`."""
    teacher: Teacher = Teacher()
    """The teacher of `curio`."""
    init: str = "base"
    """Checkpoint to start from: `base`, a folder, a hub id, or another run's `NAME:sft`."""
    reduction: Literal["token_mean", "seq_mean_token_mean", "micro_token_mean"] = "token_mean"
    """How token losses become one number (D7 of docs/deviations.md)."""
    epochs: int = Field(3, ge=1)
    """Passes over the data (Table 5)."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps at most; none is what `epochs` gives (our choice)."""
    batch_size: int = Field(256, ge=1)
    """Rows per optimizer step over all ranks (Table 5)."""
    max_response_length: int = Field(8192, ge=1)
    """Longest response in tokens, end token included; longer ones are cut and counted (Table 5)."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack, that is of one forward pass (our choice)."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate (Table 5)."""
    warmup_steps: int = Field(60, ge=0)
    """Steps of linear warm-up (Table 5)."""
    min_lr_ratio: float = Field(1e-4, ge=0, le=1)
    """Floor of the cosine, as a share of the peak (the authors' script)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay (the authors' configuration)."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this (the authors' configuration)."""
    precision: Precision = "auto"
    """Products in bfloat16 with float32 weights where the hardware has bfloat16, else float32 (our choice)."""
    head_chunk: int = Field(1024, ge=1)
    """Supervised positions per step of the chunked head; bounds memory, not results (our choice)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory (our choice)."""
    save_steps: int = Field(100, ge=1)
    """Optimizer steps between checkpoints; the last step always saves (our choice)."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept (our choice)."""
    max_skipped_steps: int = Field(5, ge=1)
    """Steps in a row with a non-finite gradient before the run stops with exit code 4 (our choice)."""


class Rl(Section):
    objective: str = "grpo"
    """grpo, curio_official, luffy, rl_plus, prefix_rft or hpt."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The objective's own parameters, e.g. `clip_high`."""
    init: str = "sft"
    """Checkpoint to start from: `sft` (this run's), `base`, a folder, a hub id, or `NAME:sft`."""
    reduction: Literal["constant", "token_mean", "seq_mean_token_mean"] = "constant"
    """How token losses become one number (docs/equations.md)."""
    advantage_std: bool = True
    """Divide the group advantage by its standard deviation (the authors' code)."""
    steps: int = Field(500, ge=1)
    """Training steps (Table 6): one sampling and its updates."""
    prompts_per_step: int = Field(128, ge=1)
    """Prompts sampled per step over all ranks (Table 6)."""
    num_generations: int = Field(8, ge=1)
    """Rollouts per prompt (Table 6)."""
    mini_batch_prompts: int = Field(64, ge=1)
    """Prompts per optimizer update (Table 6)."""
    max_completion_length: int = Field(8192, ge=1)
    """Longest rollout in tokens (Table 6)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature (Table 6)."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Table 6)."""
    learning_rate: float = Field(1e-6, gt=0)
    """Learning rate, constant after the warm-up (Table 6)."""
    warmup_steps: int = Field(0, ge=0)
    """Updates of linear warm-up (our choice)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this."""
    precision: Precision = "auto"
    """As `sft.precision`."""
    head_chunk: int = Field(1024, ge=1)
    """As `sft.head_chunk`."""
    max_tokens_per_batch: int = Field(16384, ge=1)
    """Tokens of one pack (our choice)."""
    gradient_checkpointing: bool = False
    """As `sft.gradient_checkpointing`."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Who samples: vLLM where it is installed, else transformers."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Key-value cache of the engine on CPU, GiB (our choice; a GPU engine sizes its own)."""
    gpu_memory_utilization: float = Field(0.6, gt=0, le=1)
    """Share of GPU memory that the embedded engine may take (our choice)."""
    handover_check_every: int = Field(10, ge=1)
    """Steps between checks that the engine took the weights; the first hand-over is always checked."""
    handover_tolerance: float | None = Field(None, gt=0)
    """Mean log-probability gap in nats that stops the run; none is 0.02 in float32, 0.1 in bfloat16."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes per rank (our choice)."""
    save_steps: int = Field(25, ge=1)
    """Steps between checkpoints; the last step always saves (our choice)."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept (our choice)."""
    max_skipped_steps: int = Field(5, ge=1)
    """As `sft.max_skipped_steps`."""


class Eval(Section):
    name: str = Field("eval", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the results inside the run; one set of sampling settings has one name."""
    checkpoints: Names = ("sft",)
    """References: `base`, `sft`, `sft@300`, `rl`, `OTHER-RUN:sft`, a folder or a hub id."""
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
    samples: int | None = Field(None, ge=1)
    """Samples per question; none is the benchmark's own (8; 1 for mmlu_pro)."""
    limit: int | None = Field(None, ge=1)
    """First questions of each benchmark only; recorded in the result. None is all."""
    temperature: float = Field(0.6, ge=0)
    """Sampling temperature (Section 5)."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of the sampling (Section 5)."""
    max_completion_length: int = Field(8192, ge=1)
    """Longest completion in tokens."""
    pass_k: tuple[int, ...] = (1, 2, 4, 8)
    """k of the Pass@k column(s); those above `samples` are left out."""
    entropy_samples: int = Field(1, ge=0)
    """Completions per question for the teacher-forced entropy; 0 switches it off (our choice)."""
    grader: Literal["curiosft", "official"] = "curiosft"
    """Ours, or a reproduction of the authors' graders."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Who samples."""
    precision: Precision = "auto"
    """Precision of the engine."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """As `rl.kv_cache_gib`."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of GPU memory that the engine may take (vLLM's default)."""
    grader_workers: int = Field(2, ge=1)
    """Grader processes (our choice)."""


class Launch(Section):
    processes: int | None = Field(None, ge=0)
    """Training processes through accelerate; 0 trains inside the command (tests, debugger);
    none is one per GPU, or one on CPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each process (OMP_NUM_THREADS); none takes it from the environment,
    or shares the cores among the processes."""


class Log(Section):
    trackers: tuple[Literal["wandb", "tensorboard", "trackio"], ...] = ()
    """Trackers beside metrics.jsonl, through accelerate; each must be installed."""
    every: int = Field(1, ge=1)
    """Optimizer steps between metric lines."""


class Config(Section):
    """The whole configuration, one section per room."""

    run: Run = Run()
    model: Model = Model()
    data: Data = Data()
    rephrase: Rephrase = Rephrase()
    sft: Sft = Sft()
    rl: Rl = Rl()
    eval: Eval = Eval()
    launch: Launch = Launch()
    log: Log = Log()
