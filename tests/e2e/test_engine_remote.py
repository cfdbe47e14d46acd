"""A real vLLM server as rollout engine: samples, scores, and takes new weights through a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import build_tiny_model
from transformers import AutoModelForCausalLM

from curiosft_cli.engine.base import Sampling, generate
from curiosft_cli.engine.remote import RemoteEngine
from curiosft_cli.engine.server import serve
from curiosft_cli.engine.weights import FullState, check_handover
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.processes import free_port

pytest.importorskip("vllm")
pytestmark = pytest.mark.e2e

PROMPTS = [[5, 6, 7, index + 10] for index in range(6)]
# Longer than a block of the prefix cache (128 tokens), so that a stale cache would show.
LONG = [3 + index % 400 for index in range(150)]


def logp(model: torch.nn.Module, ids: list[int]) -> list[float]:
    tokens = torch.tensor([ids])
    with torch.no_grad():
        rows = model(tokens).logits[0, :-1].log_softmax(-1)
    return rows.gather(-1, tokens[0, 1:, None]).flatten().tolist()


def test_a_server_samples_and_takes_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    folder = build_tiny_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sampling = Sampling(1.0, 0.95, 12, (2,))
    with serve(
        folder, name="tiny", log_file=tmp_path / "log", max_model_len=256, dtype="float32", kv_cache_gib=0.1
    ) as url:
        with pytest.raises(CurioError, match="reports raw log-probabilities, this run needs processed ones"):
            RemoteEngine([url], max_model_len=256, weights=tmp_path / "weights", logprobs="processed")
        engine = RemoteEngine([url], max_model_len=256, weights=tmp_path / "weights")
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
        engine.load_weights(7, FullState(model))
        after = engine.score(LONG)
        check_handover(after, logp(model, LONG), 1e-3)
        with pytest.raises(CurioError):
            check_handover(before, after, 1e-3)
        assert {c.weights_version for c in generate(engine, PROMPTS, sampling, list(range(6)))} == {7}
        engine.close()


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CurioError, match="does not answer"):
        RemoteEngine([f"http://127.0.0.1:{free_port()}"], max_model_len=64, weights=tmp_path)
