"""The table of differences between the paper, the authors' code and our default, and what `run.fidelity` sets.

Docs and command print the table. A row names the keys that choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

Tree = dict[str, Any]


@dataclass(frozen=True)
class Deviation:
    """One row of the table.

    Attributes:
        number: D1, D2, ...
        topic: what differs.
        paper: the paper's text; "-" where it says nothing.
        official: the authors' public code, or that of a baseline; "-" where it says nothing.
        default: our choice.
        keys: the settings that choose; "-" if there is nothing to choose.
        objectives: the objectives that the row is about; empty for all.
        stage: the stage that the row is about, where no key says so.
    """

    number: str
    topic: str
    paper: str
    official: str
    default: str
    keys: str
    objectives: tuple[str, ...] = ()
    stage: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows."""
        return self.number, self.topic, self.paper, self.official, self.default, self.keys


CURIO = ("curio",)
GRPO = ("grpo", "curio_official")
HYBRID = ("luffy", "rl_plus", "prefix_rft", "hpt")

DIFFERENCES = (
    Deviation(
        "D1",
        "teacher update",
        "formula: student weight 0.99; prose: 'decay'",
        "student weight 0.99",
        "student weight 0.99",
        "sft.teacher.student_weight",
        CURIO,
    ),
    Deviation(
        "D2",
        "steps of the temperature search",
        "15 halvings",
        "20 halvings",
        "Newton, to float32 rounding",
        "sft.teacher.search, sft.teacher.iters",
        CURIO,
    ),
    Deviation(
        "D3",
        "target entropy out of reach",
        "clamp the target, then search",
        "take the end point",
        "take the end point (same within 6e-6)",
        "sft.teacher.clamp",
        CURIO,
    ),
    Deviation(
        "D4",
        "low-entropy guard",
        "absent",
        "lowest temperature at full entropy <= 0.03 nats",
        "as the code",
        "sft.teacher.low_entropy_guard",
        CURIO,
    ),
    Deviation("D5", "vocabulary below 512", "listing fails", "k = V", "k = min(512, V)", "sft.teacher.topk", CURIO),
    Deviation(
        "D6",
        "K2 term",
        "sum over t, y without index",
        "expert token, token mean",
        "expert token, token mean",
        "-",
        CURIO,
        "sft",
    ),
    Deviation(
        "D7",
        "reduction of the supervised loss",
        "-",
        "mean of the means of 2 rows",
        "global token mean",
        "sft.reduction, sft.micro_batch_rows",
    ),
    Deviation(
        "D8",
        "precision of the search",
        "-",
        "autocast: z / tau and tau in bfloat16, log-softmax in float32",
        "float32",
        "sft.teacher.search_dtype",
        CURIO,
    ),
    Deviation(
        "D9",
        "RL loss",
        "GRPO, clip 0.2 / 0.28",
        "another formula, 0.8 / 1.2",
        "the paper's",
        "rl.objective, rl.params.clip_low, rl.params.clip_high",
        GRPO,
    ),
    Deviation("D10", "RL mini-batch, prompts", "64", "32 (other methods' scripts: 64)", "64", "rl.mini_batch_prompts"),
    Deviation("D11", "rollout top_p", "0.95", "1.0 (other methods' scripts: D23)", "0.95", "rl.top_p", GRPO),
    Deviation(
        "D12",
        "evaluation: top_p, grader, long prompts",
        "0.95",
        "1.0; two graders, format not checked; prompts over 1,024 tokens dropped in silence",
        "0.95; our grader; every prompt is asked",
        "eval.top_p, eval.grader",
    ),
    Deviation("D13", "RL length", "500 steps", "12 epochs", "500 steps", "rl.epochs"),
    Deviation(
        "D14",
        "top-20 % entropy, KL to the base model",
        "no detail",
        "not runnable",
        "step-wide quantile; reverse KL, 0.1",
        "sft.params",
        ("entropy_top", "kl"),
    ),
    Deviation(
        "D15", "GEM's h", "-", "code: linear; launch scripts: logsigmoid", "logsigmoid", "sft.params.gem_h", ("gem",)
    ),
    Deviation(
        "D16",
        "clip of LUFFY and RL-PLUS",
        "Table 6 implies one recipe: 0.2 / 0.28",
        "their scripts: none",
        "each method's own script",
        "rl.params.clip_low, rl.params.clip_high",
        ("luffy", "rl_plus"),
    ),
    Deviation(
        "D17",
        "end of the cosine",
        "cosine",
        "4 times the training: 8.8e-6 after the last of 534 steps",
        "end of the training: 1.1e-9",
        "sft.cosine_length",
    ),
    Deviation(
        "D18",
        "start of the warm-up",
        "-",
        "from 1e-4 of the peak, peak in step 60",
        "from peak / 60, peak in step 59",
        "sft.warmup_start",
    ),
    Deviation(
        "D19",
        "end token of supervised rows",
        "-",
        "the tokenizer's: endoftext, 151643",
        "the template's turn end: im_end",
        "model.end_token",
    ),
    Deviation(
        "D20",
        "correction for the sampler",
        "none",
        "none",
        "on where products are bfloat16",
        "rl.importance_sampling",
    ),
    Deviation(
        "D21",
        "RL reward",
        "right and well formatted",
        "either grader, after a closed thought; also 1 without a box, with a box in the thought only, two </think>, or "
        "an empty thought",
        "right and well formatted",
        "rl.grader",
    ),
    Deviation(
        "D22",
        "balance of the terms of LUFFY, RL-PLUS, HPT, Prefix-RFT",
        "-",
        "their scripts: means per micro-batch, added up on 8 GPUs (Prefix-RFT: not published)",
        "the scripts' on average (Prefix-RFT: LUFFY's)",
        "rl.params.script_gpus, rl.params.script_tokens",
        HYBRID,
    ),
    Deviation(
        "D23",
        "rollout top_p of LUFFY, RL-PLUS, HPT, Prefix-RFT",
        "0.95 (Table 6)",
        "their scripts: 1.0",
        "0.95; HPT, which the paper does not have: 1.0",
        "rl.top_p",
        HYBRID,
    ),
    Deviation(
        "D24",
        "normalisation of the RL loss",
        "GRPO: a mean per response",
        "rows times longest response",
        "rows times longest response",
        "rl.reduction",
    ),
    Deviation(
        "D25",
        "rewritten questions",
        "DeepSeek-V3, no check",
        "-",
        "checked, and refused where a check fails; deepseek-chat, a moving name (rephrase.model), recorded",
        "-",
        stage="rephrase",
    ),
    Deviation(
        "D26",
        "training questions",
        "rephrased",
        "their own rephrased set",
        "the authors' set (data.train=rephrase: this run's own; raw: before cleaning)",
        "data.train",
    ),
    Deviation(
        "D27",
        "rates of GEM, DFT, PSFT",
        "-",
        "their scripts: 2e-5, 5e-5, 1e-6, each with its own warm-up and decay",
        "Table 5 for all",
        "sft.learning_rate, sft.warmup_steps, sft.weight_decay, sft.min_lr_ratio, sft.adam_betas, sft.batch_size",
        ("gem", "dft", "psft"),
    ),
    Deviation("D28", "last partial batch of an epoch", "-", "dropped", "kept", "data.drop_last"),
)


def as_table(rows: Iterable[Deviation] = DIFFERENCES, width: int = 28) -> str:
    """Rows of the table as text, columns at most `width` characters wide."""
    head = Deviation("#", "topic", "paper", "official", "default", "keys")
    cells = [[wrap(cell, width) or [""] for cell in row.cells] for row in (head, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(cells[0]))]
    lines: list[str] = []
    for row in cells:
        for depth in range(max(len(cell) for cell in row)):
            parts = (cell[depth] if depth < len(cell) else "" for cell in row)
            lines.append("  ".join(f"{part:{size}}" for part, size in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def as_markdown() -> str:
    """The table of docs/deviations.md."""
    head = "| # | topic | paper | authors' code | default | keys |\n|---|---|---|---|---|---|\n"
    return head + "".join("| " + " | ".join(row.cells) + " |\n" for row in DIFFERENCES)


@dataclass(frozen=True)
class Fidelity:
    """What one reading sets below a user's own values.

    Attributes:
        always: whatever the objectives are.
        sft: the keys of `[sft]` for each objective that the user or the default names.
        rl: the same of `[rl]`.
    """

    always: Tree
    sft: Mapping[str, Tree]
    rl: Mapping[str, Tree]


TABLE_6_CLIP: Tree = {"params": {"clip_low": 0.2, "clip_high": 0.28}}

# The authors' trainer: D2, D7, D8, D17, D18.
AUTHORS_SFT: Tree = {
    "teacher": {"search": "bisect", "iters": 20, "search_dtype": "logits"},
    "reduction": "micro_token_mean",
    "micro_batch_rows": 2,
    "cosine_length": 4.0,
    "warmup_start": 1e-4,
}
# The authors' RL script: D9, D10, D13, D21.
AUTHORS_RL: Tree = {
    "objective": "curio_official",
    "mini_batch_prompts": 32,
    "epochs": 12,
    "grader": "official",
}

FIDELITIES: dict[str, Fidelity] = {
    "default": Fidelity({}, {}, {}),
    "paper": Fidelity(
        {
            # D2, D3, D4: the listing of Appendix D clamps the target, bisects 15 times, and has no low-entropy guard.
            "sft": {"teacher": {"search": "bisect", "iters": 15, "clamp": "target", "low_entropy_guard": "none"}},
            "rl": {"importance_sampling": "off"},  # D20
        },
        {},
        {
            "luffy": TABLE_6_CLIP,  # D16
            "rl_plus": TABLE_6_CLIP,
            "curio_official": {"objective": "grpo"},  # D9
        },
    ),
    "official": Fidelity(
        {
            "model": {"end_token": "tokenizer"},  # D19
            "data": {"drop_last": True},  # D28
            "rl": {"importance_sampling": "off", "top_p": 1.0},  # D20, D11, D23
            "eval": {"top_p": 1.0, "grader": "official"},  # D12
        },
        {
            **dict.fromkeys(("sft", "entropy", "entropy_top", "kl", "curio"), AUTHORS_SFT),
            # D27: their launch scripts. Warm-ups that are a share (3 %, 10 %) are that share of 534 and of 178 steps; a
            # floor of 1 is a constant rate. Epochs and, where the script leaves it open, batches stay the paper's.
            "gem": {
                "learning_rate": 2e-5,
                "warmup_steps": 16,
                "warmup_start": 0.0,
                "min_lr_ratio": 0.0,
                "weight_decay": 0.0,
                "params": {"gem_h": "logsigmoid"},  # D15
            },
            "dft": {
                "learning_rate": 5e-5,
                "warmup_steps": 17,
                "warmup_start": 0.0,
                "min_lr_ratio": 0.0,
                "adam_betas": [0.9, 0.95],
                "epochs": 1,
            },
            "psft": {
                "learning_rate": 1e-6,
                "warmup_steps": 10,
                "warmup_start": 0.0,
                "min_lr_ratio": 1.0,
                "weight_decay": 0.1,
                "batch_size": 8,
            },
        },
        {
            "grpo": AUTHORS_RL,
            "curio_official": AUTHORS_RL,
            # LUFFY and RL-PLUS: what their scripts set is the default, with the top_p above.
            "hpt": {"learning_rate": 5e-6, "skip_grad_norm": 80.0},
            "prefix_rft": {"params": {"clip_high": 0.2}},
        },
    ),
}


def fidelity_tree(name: str, sft_objective: str, rl_objective: str) -> Tree:
    """What `run.fidelity = name` sets for these objectives; empty for a name that does not exist."""
    fidelity = FIDELITIES.get(name, FIDELITIES["default"])
    own = {"sft": fidelity.sft.get(sft_objective, {}), "rl": fidelity.rl.get(rl_objective, {})}
    return merge(fidelity.always, own)


def merge(base: Tree, over: Mapping[str, Any]) -> Tree:
    """A new tree with the values of both; those of `over` win."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return merged
