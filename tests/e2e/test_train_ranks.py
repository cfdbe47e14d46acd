"""Two real processes, data parallel and sharded, do what one does: weights, teacher, checkpoint and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curiosft_cli.run.processes import free_port

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM
from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.sections import Model, Sft, TeacherSettings
from curiosft_cli.train.batches import rank_packs
from curiosft_cli.train.checkpoint import load_state, save_checkpoint
from curiosft_cli.train.encode import Row
from curiosft_cli.train.load import load_tokenizer
from curiosft_cli.train.optim import clip_and_step, make_optimizer
from curiosft_cli.train.student import BESIDE_FORWARD, Student
from curiosft_cli.train.teacher import Teacher

base, kinds = sys.argv[1], sys.argv[3:]
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
ranks, rank = accelerator.num_processes, accelerator.process_index
# Unequal lengths, and five rows over two ranks.
ROWS = [Row((5, 6, 7), tuple(range(8, 8 + n))) for n in (2, 23, 1, 7, 12)]
TOKENS = sum(len(row.response_ids) for row in ROWS)
OBJECTIVE = SFT_OBJECTIVES["curio"].bind()

def opened(kind, path, resume=None):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    inner = Student(model, chunk=8, compute_dtype=torch.float32)
    student = inner
    if kind == "sharded":
        mesh = init_device_mesh("cpu", (ranks,))
        # As accelerate does: the layers that the module names, then the module itself.
        named = [m for m in inner.modules() if type(m).__name__ in inner._no_split_modules]
        assert len(named) == len(inner.model.model.layers)
        for layer in named:
            fully_shard(layer, mesh=mesh)
        fully_shard(inner, mesh=mesh)
        for method in BESIDE_FORWARD:
            register_fsdp_forward_method(inner, method)
    elif kind == "ddp":
        student = DistributedDataParallel(inner)
    optimizer = make_optimizer(inner, Sft(learning_rate=3e-3, adam_epsilon=1e-4))
    teacher = Teacher(inner, TeacherSettings(sync_every=2, student_weight=0.5, topk=64))
    if resume:
        teacher.load(load_state(resume, accelerator=accelerator, optimizer=optimizer)[1])
    return student, inner, optimizer, teacher

def train(state, steps):
    student, inner, optimizer, teacher = state
    norms = []
    for step in steps:
        packs = rank_packs(ROWS, 16, rank=rank, ranks=ranks, device="cpu")
        for pack in packs:
            extra = {"teacher_logp": teacher.logp(pack).logp}
            # Data parallel averages over the ranks.
            weights = torch.full((len(pack.labels),), ranks / TOKENS * pack.counted)
            student(pack, OBJECTIVE, extra, weights)[0].backward()
        norms.append(clip_and_step(accelerator, student, optimizer, 3e-3, 1.0)[0])
        teacher.update(step + 1)
    return norms

def save(state, target):
    save_checkpoint(target, accelerator=accelerator, model=state[1].model, tokenizer=load_tokenizer(base, Model()),
                    optimizer=state[2], tensors=state[3].state(3), counters={"step": 3})

for kind in kinds:
    out = Path(sys.argv[2]) / kind
    out.mkdir(exist_ok=True)
    whole = opened(kind, base)
    norms = train(whole, range(3))
    save(whole, out / "checkpoint-3")
    norms += train(whole, range(3, 6))
    save(whole, out / "checkpoint-6")
    again = opened(kind, out / "checkpoint-3", resume=out / "checkpoint-3")
    train(again, range(3, 6))
    pairs = [(a.to_local(), b.to_local()) if kind == "sharded" else (a.detach(), b.detach())
             for a, b in zip(whole[1].parameters(), again[1].parameters(), strict=True)]
    same = all(torch.equal(a, b) for a, b in pairs)
    same = same and all(torch.equal(value, again[3].weights[name]) for name, value in whole[3].weights.items())
    (out / f"rank-{rank}.json").write_text(json.dumps({"norms": norms, "resumed": same}))
accelerator.end_training()
"""


Seen = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def launch(kinds: list[str], ranks: int, model: Path, out: Path) -> dict[str, Seen]:
    """Train 6 steps in each way; return the final weights and what each rank wrote."""
    script = out / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(model), str(out), *kinds]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    if ranks > 1:
        port = ["--nproc_per_node", str(ranks), "--master_port", str(free_port())]
        command = [sys.executable, "-m", "torch.distributed.run", *port, *command[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        kind: (
            load_file(out / kind / "checkpoint-6" / "model.safetensors"),
            [json.loads((out / kind / f"rank-{rank}.json").read_text()) for rank in range(ranks)],
        )
        for kind in kinds
    }


@pytest.mark.e2e
def test_two_ranks_do_what_one_does(tiny_model: Path, tmp_path: Path) -> None:
    expected, [one] = launch(["plain"], 1, tiny_model, tmp_path)["plain"]
    assert one["resumed"]
    for kind, (weights, ranks) in launch(["ddp", "sharded"], 2, tiny_model, tmp_path).items():
        assert ranks[0]["norms"] == ranks[1]["norms"]
        assert ranks[0]["norms"] == pytest.approx(one["norms"], rel=1e-4)
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-4)
        assert all(rank["resumed"] for rank in ranks)
        first, second = (
            load_file(tmp_path / kind / "checkpoint-6" / "state" / f"rank-0000{rank}.safetensors") for rank in range(2)
        )
        # Each rank keeps its own shards; what both hold alike is kept once.
        assert {name.partition(".")[0] for name in first} == {"optimizer", "teacher", "rng"}
        assert set(second) == (set(first) if kind == "sharded" else {name for name in first if name.startswith("rng.")})
