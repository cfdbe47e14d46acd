"""Run folders made by hand, for tests of the report: as the stages write them, with any content."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curiosft_cli.run.files import JsonLines, write_compressed_jsonl, write_json

KEYS = (
    *("train/loss_nats", "train/entropy_nats", "train/entropy_top20_nats", "train/entropy_bottom80_nats"),
    *("train/tau_q10", "train/tau_q50", "train/tau_q90", "train/delta_nats_q10", "train/delta_nats_q50"),
    *("train/delta_nats_q90", "train/gap_nats_q10", "train/gap_nats_q50", "train/gap_nats_q90", "train/grad_norm"),
    *("train/token_weight_q10", "train/token_weight_q50", "train/token_weight_q90", "tokens/s", "memory/peak_gib"),
    *("time/step_s", "reward/mean", "completions/mean_length", "completions/clipped_ratio", "train/mismatch_nats"),
)


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSONL file."""
    with JsonLines(file) as lines:
        for row in rows:
            lines.append(row)


def write_run(folder: Path, *, steps: int = 4, objective: str = "curio", seed: int = 0, pivot: float = 1.2) -> Path:
    """A run with `steps` of sft and of rl; what it learnt is random."""
    chance = random.Random(seed)
    for stage in ("sft", "rl"):
        config = {
            "run": {"name": folder.name, "seed": seed},
            "model": {"path": "somewhere/model"},
            "sft": {"objective": objective, "teacher": {"h_pivot": pivot}},
        }
        write_json(folder / stage / "config.json", config)
        write_json(folder / stage / "env.json", {"python": "3.11", "packages": {"torch": "2.13"}})
        write_json(folder / stage / "status.json", {"state": "complete"})
        rows = [{"step": step, **{key: chance.random() for key in KEYS}} for step in range(1, steps + 1)]
        for row in rows[1::2]:
            row |= {"eval/arithmetic/avg": 100 * chance.random(), "eval/arithmetic/entropy_nats": chance.random()}
            row["eval/arithmetic/pass@8"] = 100 * chance.random()
        write_lines(folder / stage / "metrics.jsonl", rows)
    return folder


def write_evaluation(
    run: Path,
    checkpoint: str,
    texts: Sequence[Sequence[str]],
    right: Sequence[Sequence[int]],
    question: str = "1 + 1 = ?",
) -> None:
    """The evaluation of one checkpoint: the responses to each question, and which of them are right."""
    folder, ids = run / "eval" / checkpoint / "arithmetic", [f"q{number}" for number in range(len(texts))]
    each = len(texts[0])
    scores = [sum(some) / each for some in right]
    places = [(number, sample) for number in range(len(texts)) for sample in range(each)]
    common = [{"id": ids[number], "sample": sample, "tokens": 5, "finish_reason": "stop"} for number, sample in places]
    write_compressed_jsonl(
        folder / "samples.jsonl.zst",
        [row | {"text": texts[number][sample]} for row, (number, sample) in zip(common, places, strict=True)],
    )
    reasons = {0: "wrong", 1: "correct"}
    write_compressed_jsonl(
        folder / "grades.jsonl.zst",
        [
            row | {"answer": float(grade), "reason": reasons[grade], "extracted": str(grade)}
            for row, (number, sample) in zip(common, places, strict=True)
            for grade in [right[number][sample]]
        ],
    )
    write_lines(
        folder / "questions.jsonl",
        [
            {
                "id": id_,
                "question": f"{question} ({id_})",
                "gold": "2",
                "samples": each,
                "answer": score,
                "strict": score,
            }
            for id_, score in zip(ids, scores, strict=True)
        ],
    )
    summary = {"checkpoint": checkpoint, "benchmark": "arithmetic", "questions": len(ids), "samples": each}
    scored = {
        "avg": 100 * sum(scores) / len(ids),
        "standard_error": 2.0,
        "ngram_diversity_4": 0.5,
        "entropy_nats": 0.3,
    }
    write_json(folder / "summary.json", summary | scored)


def write_tokens(run: Path, step: int, rows: Sequence[Sequence[str]], seed: int = 0) -> None:
    """The curiosity map of one evaluation: the tokens of each row, with random values."""
    chance = random.Random(seed)
    lines = []
    for number, tokens in enumerate(rows):
        values = {
            name: [chance.random() for _ in tokens] for name in ("entropy", "logp", "tau", "delta", "gap", "weight")
        }
        candidates = [[[token, 0.6], ["other", 0.2]] for token in tokens]
        line = {"row": number, "id": f"held-{number}", "prompt": "What is 1 + 1?", "tokens": list(tokens), **values}
        lines.append(line | {"student": candidates, "teacher": candidates})
    write_compressed_jsonl(run / "sft" / "tokens" / f"step-{step:06d}.jsonl.zst", lines)
