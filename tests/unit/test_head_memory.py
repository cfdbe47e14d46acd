"""No objective makes a [tokens, vocabulary] tensor: the peak of each is a few chunks, measured in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from curiosft_cli.objectives import SFT_OBJECTIVES

TOKENS, VOCABULARY, CHUNK = 256, 100_000, 4

SCRIPT = """
import json
import torch
from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.train.head.fused import fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import head_logp, teacher_logp

torch.set_num_threads(1)
tokens, vocabulary, chunk = {tokens}, {vocabulary}, {chunk}
hidden, weight = torch.randn(tokens, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
labels = torch.randint(vocabulary, (tokens,))
given = {{name: torch.zeros(tokens) for name in ("teacher_logp", "old_logp", "ref_logp")}}
given |= {{"teacher_tau": torch.ones(tokens), "focus_floor": torch.ones(tokens)}}
given["selected"] = torch.arange(tokens) % 5 == 0

def train(objective, **more):
    weights = [torch.full((tokens,), 1 / tokens)] * len(objective.terms)
    base = (hidden, weight) if "ref_logits" in objective.needs else None
    extra = {{name: given[name] for name in objective.needs & given.keys()}}
    fused_head(hidden, weight, labels, objective, extra=extra, weights=weights, chunk=chunk,
               head_pass=HeadPass(entropy=True, reference=base, **more))[0].backward()

def resident(key):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status[key].split()[0]) * 1024

def grown(call):
    hidden.grad, weight.grad = None, None
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before

variants = {{"kl": [dict(kl_kind=kind) for kind in ("reverse", "forward", "k3")],
            "gem": [dict(gem_h=h) for h in ("logsigmoid", "linear")],
            "entropy_top": [dict(denominator=d) for d in ("all", "selected")],
            "deft": [dict(focus=focus) for focus in ("concentration", "cayley")],
            "curio_distribution": [dict(kl_kind=kind) for kind in ("reverse", "forward")]}}
calls = {{f"{{name}} {{params}}": lambda o=objective.bind(**params): train(o)
         for name, objective in SFT_OBJECTIVES.items() for params in variants.get(name, [{{}}])}}
settings = TemperatureSettings()
calls["self-teacher"] = lambda: train(SFT_OBJECTIVES["curio"].bind(), self_teacher=settings)
calls["teacher"] = lambda: teacher_logp(hidden, weight, labels, settings, chunk=chunk)
calls["selection by entropy"] = lambda: head_logp(hidden, weight, labels, chunk=chunk, head_pass=HeadPass(entropy=True))
print(json.dumps({{name: grown(call) for name, call in calls.items()}}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads and resets the peak in /proc")
def test_every_objective_holds_a_few_chunks_and_never_all_logits() -> None:
    """256 tokens of 100,000 words: all logits are 102 MB, a chunk of 4 is 1.6 MB; an autograd graph holds a dozen."""
    # What is freed goes back at once, so that the resident size is what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    script = SCRIPT.format(tokens=TOKENS, vocabulary=VOCABULARY, chunk=CHUNK)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    # The gradient of the head is a [vocabulary, 8] tensor, held twice while it is summed: four chunks.
    chunks = {name: grown / (CHUNK * VOCABULARY * 4) for name, grown in seen.items()}
    assert {name.split(" ")[0] for name in chunks} - {"self-teacher"} >= SFT_OBJECTIVES.keys()
    assert max(chunks.values()) < TOKENS / CHUNK / 2, chunks
    assert chunks["sft {}"] > 1  # something was measured


PEAK = """
import torch
from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.objectives.temperature import TemperatureSettings
from curiosft_cli.train.head.fused import fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import teacher_logp
torch.set_num_threads(1)
tokens, size, vocabulary, chunk = {tokens}, {size}, {vocabulary}, {chunk}
hidden = torch.randn(tokens, size, requires_grad=True)
weight = torch.randn(vocabulary, size, requires_grad=True)
labels = torch.randint(vocabulary, (tokens,))
def step(n):
    teacher = teacher_logp(hidden[:n], weight, labels[:n], TemperatureSettings(), chunk=chunk)
    loss, _ = fused_head(hidden[:n], weight, labels[:n], SFT_OBJECTIVES["curio"].bind(),
        extra={{"teacher_logp": teacher.logp}}, weights=torch.full((n,), 1 / n), chunk=chunk,
        head_pass=HeadPass(entropy=True))
    loss.backward()
def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024
before = peak()
step(tokens)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_is_bounded_by_the_chunk() -> None:
    """4,096 tokens of 200,000 words: full logits hold 3.3 GB; the head's growth is a few chunks of 64 x 200,000."""
    sizes = {"tokens": 4096, "size": 8, "vocabulary": 200_000, "chunk": 64}
    done = subprocess.run(
        [sys.executable, "-c", PEAK.format(**sizes)], capture_output=True, text=True, check=True, timeout=300
    )
    grown = int(done.stdout)
    assert grown < 6 * sizes["chunk"] * sizes["vocabulary"] * 4
    assert grown < 0.1 * sizes["tokens"] * sizes["vocabulary"] * 4
    assert grown > sizes["chunk"] * sizes["vocabulary"] * 4
