"""One TRL GRPOTrainer run with transformers generation for bench/rl_step.py, in the peer's environment; one JSON line.

Float32 weights under bfloat16 autocast (or float32), AdamW, no KL, clip 0.2 / 0.28, one update a step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """1 where the last box holds the answer and the thought is closed."""
    scores = []
    for completion, wanted in zip(completions, answer, strict=True):
        text = completion[0]["content"]
        found = re.findall(r"\\boxed\{([^{}]*)\}", text)
        scores.append(float(bool(found) and found[-1].strip() == wanted and "</think>" in text))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "precision"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("prompts", "group", "max_new", "steps", "warmup", "micro"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--top_p", type=float, required=True)
    options = parser.parse_args()

    import datasets
    import torch
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # ty: ignore[import-not-found]  # in the peer's environment

    datasets.disable_progress_bars()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with open(options.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    rollouts = options.prompts * options.group
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=options.micro,
            gradient_accumulation_steps=rollouts // options.micro,
            num_generations=options.group,
            max_completion_length=options.max_new,
            max_steps=options.steps + options.warmup,
            temperature=1.0,
            top_p=options.top_p,
            beta=0.0,
            epsilon=0.2,
            epsilon_high=0.28,
            learning_rate=1e-6,
            optim="adamw_torch_fused",
            bf16=options.precision == "bfloat16",
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1000,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            model_init_kwargs={"dtype": torch.float32},
        )
        stdout, sys.stdout = sys.stdout, sys.stderr
        trainer = GRPOTrainer(
            model=options.model,
            args=settings,
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_list(rows),
            callbacks=[Clock()],
        )
        trainer.train()
        sys.stdout = stdout
    step_s = [
        later - earlier for earlier, later in zip(marks[options.warmup - 1 :], marks[options.warmup :], strict=False)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"step_s": step_s, "peak_gib": peak}))


if __name__ == "__main__":
    main()
