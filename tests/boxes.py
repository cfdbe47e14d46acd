"""A tiny model that has learnt to answer in the required format, right about half the time: RL has a signal to use."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tiny import build_tiny_model, build_tiny_tokenizer

RESPONSE = "ok\n</think>\n\n\\boxed{{{answer}}}"
ANSWERS = ("1", "2")
RECIPE = """
[run]
name = "box"
root = "{root}"
[model]
path = "{model}"
system_prompt = ""
question_prefix = ""
[data]
train = ["{data}"]
[rl]
init = "base"
engine = "transformers"
precision = "float32"
steps = 2
prompts_per_step = 4
mini_batch_prompts = 2
num_generations = 4
max_completion_length = 32
max_tokens_per_batch = 512
learning_rate = 1e-3
save_steps = 1
grader_workers = 1
preflight = "off"
[launch]
threads = 1
"""
"""Of an rl stage on this model; to be filled in: root, model, data."""


def write_questions(file: Path, rows: int, seed: int = 0) -> Path:
    """Questions whose answer is 1 or 2, each with an expert's response."""
    draw = random.Random(seed)
    with file.open("w", encoding="utf-8") as lines:
        for index in range(rows):
            answer = draw.choice(ANSWERS)
            row = {
                "id": f"q{index}",
                "question": f"which {'abcdefghij'[index % 10]}{index}",
                "answer": answer,
                "response": RESPONSE.format(answer=answer),
            }
            lines.write(json.dumps(row) + "\n")
    return file


def build_box_model(folder: Path, *, steps: int = 150, seed: int = 0) -> Path:
    """Teach a random tiny model the format, with answers that it cannot know."""
    import torch
    from transformers import AutoModelForCausalLM

    from curiosft_cli.data.records import Problem
    from curiosft_cli.train.encode import PromptFormat, encode_prompt, end_token_id

    build_tiny_model(folder, seed=seed, spread=0.05)
    tokenizer = build_tiny_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw, style = random.Random(seed), PromptFormat("", "", "<think>\n")
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(4):
            question = f"which {draw.choice('abcdefghij')}{draw.randrange(64)}"
            prompt = encode_prompt(tokenizer, Problem("q", question, "1"), style)
            text = RESPONSE.format(answer=draw.choice(ANSWERS))
            response = [*tokenizer.encode(text, add_special_tokens=False), end_token_id(tokenizer)]
            ids = torch.tensor([prompt + response])
            labels = ids.clone()
            labels[:, : len(prompt)] = -100
            (model(ids, labels=labels).loss / 4).backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder
