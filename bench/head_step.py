"""Time the chunked head against full logits with autograd, on the loss alone (no transformer body).

Four steps per shape, run in turn, medians of processor time: SFT and CurioSFT, each "fused" (this package) and
"naive" (all logits at once, autograd, `topk` and 15 bisections as in Figure 6 of the paper). A CurioSFT step holds
its teacher's head too; "products" is the limit, the bare matrix products of the fused SFT step (3 of them).
Prints one JSON line: microseconds of processor time per token, and ratios.

    OMP_NUM_THREADS=1 python bench/head_step.py --tokens 512 --chunk 256 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.temperature import TemperatureSettings, solve_logits
from curiosft_cli.objectives.tokens import label_logp
from curiosft_cli.train.head.fused import fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import teacher_logp

SHAPES = {"hidden 576, V 49152": (576, 49152), "hidden 128, V 151936": (128, 151936)}
NAIVE_SEARCH = TemperatureSettings(search="bisect", iters=15)


def inputs(hidden_size: int, vocabulary: int, tokens: int) -> dict[str, Tensor]:
    """Hidden states of varied length, so that some tokens are sure and some are not, and labels drawn from them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, hidden_size, generator=generator)
    sharpness = torch.empty(tokens, 1).uniform_(1.0, 7.0, generator=generator) / hidden_size**0.5
    hidden = torch.randn(tokens, hidden_size, generator=generator) * sharpness
    teacher = hidden + 0.05 * hidden.std() * torch.randn(tokens, hidden_size, generator=generator)
    labels = torch.cat(
        [(part @ weight.t()).softmax(-1).multinomial(1, generator=generator) for part in hidden.split(64)]
    )
    return {"hidden": hidden, "weight": weight, "teacher": teacher, "labels": labels.squeeze(1)}


def naive(data: dict[str, Tensor], teacher: bool) -> Tensor:
    hidden, weight, labels = data["hidden"], data["weight"], data["labels"]
    logp = label_logp(hidden @ weight.t(), labels)
    loss = -logp
    if teacher:
        with torch.no_grad():
            logits = data["teacher"] @ weight.t()
            target = label_logp(logits / solve_logits(logits, NAIVE_SEARCH).tau[:, None], labels)
        loss = loss + 0.5 * (logp - target).square()
    return loss.mean()


def fused(data: dict[str, Tensor], teacher: bool, chunk: int, entropy: bool = False) -> Tensor:
    hidden, weight, labels = data["hidden"], data["weight"], data["labels"]
    extra = {}
    if teacher:
        extra["teacher_logp"] = teacher_logp(data["teacher"], weight, labels, TemperatureSettings(), chunk=chunk).logp
    weights = torch.full((len(labels),), 1.0 / len(labels))
    objective = SFT_OBJECTIVES["curio" if teacher else "sft"].bind()
    return fused_head(
        hidden,
        weight,
        labels,
        objective,
        extra=extra,
        weights=weights,
        chunk=chunk,
        head_pass=HeadPass(entropy=entropy),
    )[0]


def products(data: dict[str, Tensor], chunk: int) -> Tensor:
    """Logits, hidden gradient and weight gradient as bare products through one buffer; the loss is not one."""
    hidden, weight = data["hidden"].detach(), data["weight"].detach()
    logits, by_weight = torch.empty(chunk, len(weight)), torch.zeros_like(weight)
    for part in hidden.split(chunk):
        z = torch.mm(part, weight.t(), out=logits[: len(part)])
        torch.mm(z, weight)
        by_weight.addmm_(z.t(), part)
    return by_weight[0, 0].requires_grad_()


def timed(step: Callable[[], Tensor], data: dict[str, Tensor]) -> tuple[float, float]:
    """Processor time in s of one forward and backward, and the loss."""
    for name in ("hidden", "weight"):
        data[name].grad = None
    started = time.process_time()
    loss = step()
    loss.backward()
    return time.process_time() - started, float(loss.detach())


def measure(shape: tuple[int, int], tokens: int, chunk: int, rounds: int) -> dict[str, float]:
    data = inputs(*shape, tokens)
    data["hidden"].requires_grad_(), data["weight"].requires_grad_()
    steps: dict[str, Callable[[], Tensor]] = {
        "products": lambda: products(data, chunk),
        "naive_sft": lambda: naive(data, False),
        "fused_sft": lambda: fused(data, False, chunk),
        "fused_sft_entropy": lambda: fused(data, False, chunk, entropy=True),
        "naive_curio": lambda: naive(data, True),
        "fused_curio": lambda: fused(data, True, chunk),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, float] = {}
    for done in range(rounds + 1):
        for name, step in steps.items():
            seconds, losses[name] = timed(step, data)
            if done:  # the first round pays for buffers and pages
                times[name].append(seconds)
    per_token = {name: statistics.median(values) / tokens * 1e6 for name, values in times.items()}
    return {f"{name}_us": round(value, 1) for name, value in per_token.items()} | {
        "speedup_sft": round(per_token["naive_sft"] / per_token["fused_sft"], 2),
        "speedup_curio": round(per_token["naive_curio"] / per_token["fused_curio"], 2),
        "fused_sft_over_products": round(per_token["fused_sft"] / per_token["products"], 3),
        "curio_over_sft": round(per_token["fused_curio"] / per_token["fused_sft"], 3),
        "loss_gap": abs(losses["naive_curio"] - losses["fused_curio"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512, help="supervised tokens per step")
    parser.add_argument("--chunk", type=int, default=256, help="tokens per chunk of the head")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds after one warm-up")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {name: measure(shape, options.tokens, options.chunk, options.rounds) for name, shape in SHAPES.items()}
    print(json.dumps({"torch": torch.__version__, **vars(options), **results}))


if __name__ == "__main__":
    main()
