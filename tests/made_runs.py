"""Run folders made by hand: checkpoints of a few bytes, metrics and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curiosft_cli.evaluation.fingerprint import model_identity
from curiosft_cli.run.config import resolve
from curiosft_cli.run.digests import digest_marker
from curiosft_cli.run.files import folder_in_one_step


def make_run(
    root: Path,
    name: str,
    steps: dict[int, dict[str, float]],
    extra: dict[str, str] | None = None,
    **settings: dict[str, Any],
) -> Path:
    """A run whose checkpoints have a weight file of a few bytes and `extra` ones, with these metrics by step."""
    stage = root / name / "sft"
    stage.mkdir(parents=True)
    tree = resolve({"rl": {"num_generations": 2}, **settings}, {}, origin="test").config.model_dump(mode="json")
    (stage / "config.json").write_text(json.dumps(tree))
    (stage / "metrics.jsonl").write_text("".join(json.dumps({"step": s, **row}) + "\n" for s, row in steps.items()))
    for step in steps:
        with folder_in_one_step(
            stage / f"checkpoint-{step}", lambda files, step=step: digest_marker(files, step)
        ) as files:
            (files / "model.safetensors").write_text(f"{name} {step}")
            for file, text in (extra or {}).items():
                (files / file).write_text(text)
            (files / "state").mkdir()
            (files / "state" / "rank-00000.safetensors").write_text("moments")
    return root / name


def evaluated(folder: Path, checkpoint: Path, right: list[int], samples: int = 4) -> None:
    """An evaluation's folder of one checkpoint."""
    folder.mkdir(parents=True)
    rows = [
        {"id": f"q{i}", "samples": samples, "answer": n / samples, "strict": n / samples} for i, n in enumerate(right)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"temperature": 0.6, "top_p": 0.95, "max_completion_length": 8192}
    summary = {"model": model_identity(str(checkpoint)), "settings": settings, "benchmark": folder.name, "avg": 50.0}
    summary |= {"questions": len(right), "samples": samples, "standard_error": 5.0, "pass": {"1": 50.0, "4": 90.0}}
    summary |= {"entropy_nats": 0.25, "grader": {"name": "curiosft", "version": "0"}}
    (folder / "summary.json").write_text(json.dumps(summary))
