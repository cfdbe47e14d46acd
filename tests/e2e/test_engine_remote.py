"""A real vLLM server as rollout engine: samples, scores, and takes new weights through a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from boxes import RECIPE, build_box_model, write_questions
from transformers import AutoModelForCausalLM

from curiosft_cli.engine.base import Sampling, generate
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines.local_server import serve
from curiosft_cli.engine.vllm_engines.remote import RemoteEngine
from curiosft_cli.engine.weight_handover import check_handover
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.processes import free_port
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.train.shards import WholeWeights

pytest.importorskip("vllm")
pytestmark = pytest.mark.e2e

PROMPTS = [[5, 6, 7, index + 10] for index in range(6)]
# Longer than a block of the prefix cache (32 tokens on a CPU), so that a stale cache would show.
LONG = [3 + index % 400 for index in range(150)]


def logp(model: torch.nn.Module, ids: list[int]) -> list[float]:
    tokens = torch.tensor([ids])
    with torch.no_grad():
        rows = model(tokens).logits[0, :-1].log_softmax(-1)
    return rows.gather(-1, tokens[0, 1:, None]).flatten().tolist()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A model that answers in the required format, and the server that samples from it."""
    root = tmp_path_factory.mktemp("served")
    folder = build_box_model(root / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        spec = EngineSpec(folder, 512, "float32", cpu_kv_cache_gib=0.1)
        with serve(spec, name="box", log_file=root / "log") as url:
            yield folder, url


def test_the_rl_stage_samples_with_the_weights_of_each_step(served: tuple[Path, str], tmp_path: Path) -> None:
    """First test of the module: it starts from the weights that the server came with."""
    model, url = served
    data = write_questions(tmp_path / "questions.jsonl", 24)
    file = tmp_path / "box.toml"
    file.write_text(RECIPE.format(root=tmp_path / "runs", model=model, data=data))
    settings = ["run.name=served", "launch.processes=0", f"rl.servers={url}", "rl.handover_check_every=1"]
    run_stages(load(str(file), settings), ("rl",))
    stage = tmp_path / "runs" / "served" / "rl"
    rows = list(read_jsonl(stage / "metrics.jsonl"))
    assert all(row["train/mismatch_nats_max"] < 1e-3 and row["train/grad_norm"] > 0 for row in rows)
    for step in (1, 2):
        saved = read_jsonl(stage / "rollouts" / f"step-{step:06d}.jsonl.zst")
        assert {row["weights_version"] for row in saved} == {step - 1}


def test_a_server_samples_and_takes_weights(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sampling = Sampling(1.0, 0.95, 12, (2,))
    with pytest.raises(CurioError, match="reports raw log-probabilities, this run needs processed ones"):
        RemoteEngine([url], EngineSpec(folder, 256, logprobs="processed"), weights=tmp_path / "weights")
    engine = RemoteEngine([url], EngineSpec(folder, 256), weights=tmp_path / "weights")
    assert engine._call(url.removesuffix("/v1"), "/get_world_size") == {"world_size": 1}, (
        "what a transfer over nccl asks for"
    )
    engine.load_weights(0, WholeWeights(model))
    first = generate(engine, PROMPTS, sampling, list(range(6)))
    again = generate(engine, PROMPTS, sampling, list(range(6)))
    assert [c.token_ids for c in first] == [c.token_ids for c in again]
    assert len({c.token_ids for c in first}) > 1
    for prompt, completion in zip(PROMPTS, first, strict=True):
        own = logp(model, [*prompt, *completion.token_ids])[-len(completion.token_ids) :]
        assert completion.logprobs == pytest.approx(own, abs=1e-3)
        assert completion.finish_reason == ("stop" if completion.token_ids[-1] == 2 else "length")
    before = engine.score(LONG)
    check_handover(before, logp(model, LONG), 1e-3)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.load_weights(7, WholeWeights(model))
    after = engine.score(LONG)
    check_handover(after, logp(model, LONG), 1e-3)
    with pytest.raises(CurioError):
        check_handover(before, after, 1e-3)
    assert {c.weights_version for c in generate(engine, PROMPTS, sampling, list(range(6)))} == {7}
    engine.close()


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CurioError, match="does not answer"):
        RemoteEngine([f"http://127.0.0.1:{free_port()}"], EngineSpec("m", 64), weights=tmp_path)
