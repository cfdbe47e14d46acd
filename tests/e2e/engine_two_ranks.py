"""Program of one rank: a sharded trainer and an embedded engine of its own. Started by `test_engine_ranks.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from curiosft_cli.engine.base import Sampling, generate
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines.embedded import VllmEngine
from curiosft_cli.engine.weight_handover import check_handover
from curiosft_cli.train.shards import WholeWeights

CONTEXT = 256


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    mesh = init_device_mesh("cpu", (world,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())

    engine = VllmEngine(EngineSpec(folder, CONTEXT, "float32", cpu_kv_cache_gib=0.05))
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=8 + 8 * rank, stop_token_ids=())
    prompts = [[rank + 3, 5, 6 + i] for i in range(3 + 4 * rank)]  # unequal work: the engines do not run in step
    first = generate(engine, prompts, sampling, list(range(len(prompts))))
    assert {completion.weights_version for completion in first} == {0}

    batch = torch.tensor([[rank * 7 + i % 50 + 3 for i in range(150)]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    pairs = dict(WholeWeights(model))
    assert list(pairs) == sorted(pairs)
    assert "lm_head.weight" in pairs
    assert pairs["lm_head.weight"].shape == (512, 64)
    for tensor in pairs.values():
        theirs = tensor.clone()
        dist.broadcast(theirs, src=0)
        assert torch.equal(tensor, theirs), "the ranks hold different weights"

    scored = engine.score(batch[0].tolist())
    engine.load_weights(1, WholeWeights(model))
    with torch.no_grad():
        logp = model(batch).logits[0, :-1].log_softmax(-1).gather(-1, batch[0, 1:, None]).flatten().tolist()
    handover = check_handover(engine.score(batch[0].tolist()), logp, tolerance=1e-3)
    assert sum(logp) > sum(scored) + 1.0, "training did not change the answers"
    second = generate(engine, prompts, sampling, list(range(len(prompts))))
    assert {completion.weights_version for completion in second} == {1}
    engine.close()

    total = torch.ones(())
    dist.all_reduce(total)  # the trainer's process group outlives the engine
    assert total == world
    print(f"rank {rank} agrees within {handover.max:.1e}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
