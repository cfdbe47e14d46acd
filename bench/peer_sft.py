"""One TRL SFTTrainer run for bench/sft_step.py, in the peer's environment; prints one JSON line.

Vanilla SFT on prompt-completion rows, float32 weights under bfloat16 autocast (or float32), AdamW, no checkpointing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "precision"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rows", "steps", "warmup", "micro_batch", "max_length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--packing", action="store_true")
    options = parser.parse_args()

    import datasets
    import torch
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer  # ty: ignore[import-not-found]  # in the peer's environment

    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    with open(options.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    marks: list[tuple[float, float]] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            tokens.append(0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append((time.process_time(), time.perf_counter()))

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            mask = inputs.get("attention_mask")
            tokens[-1] += int(inputs["input_ids"].numel() if mask is None else mask.sum())
            return super().training_step(model, inputs, *rest, **more)

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=1 if options.packing else options.micro_batch,
            gradient_accumulation_steps=max(1, options.rows // options.micro_batch),
            max_steps=options.steps + options.warmup,
            max_length=options.max_length,
            packing=options.packing,
            learning_rate=1e-5,
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
        trainer = Counting(
            model=options.model, args=settings, train_dataset=datasets.Dataset.from_list(rows), callbacks=[Clock()]
        )
        trainer.train()
        sys.stdout = stdout
    (cpu_0, wall_0), (cpu_1, wall_1) = marks[options.warmup - 1], marks[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counted = sum(tokens[options.warmup :])
    print(json.dumps({"tokens": counted, "cpu_s": cpu_1 - cpu_0, "wall_s": wall_1 - wall_0, "peak_mib": peak}))


if __name__ == "__main__":
    main()
