"""The transformers engine against a plain forward pass of the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import build_tiny_model
from transformers import AutoModelForCausalLM

from curiosft_cli.engine.base import Sampling, generate
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.transformers_engine import TransformersEngine
from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.shards import WholeWeights

CONTEXT = 64
PROMPTS = [[5, 6, 7], list(range(40, 80)), [9], list(range(300, 320))]
SEEDS = [11, 12, 13, 14]
SAMPLED = Sampling(temperature=0.8, top_p=0.9, max_tokens=20, stop_token_ids=())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape with other weights."""
    return build_tiny_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(EngineSpec(tiny_model, CONTEXT, "float32"), batch_size=3)
    yield engine
    engine.close()


def plain_logprobs(folder: Path, tokens: list[int]) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logp = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    return logp.gather(-1, torch.tensor(tokens[1:])[:, None]).flatten().tolist()


def test_logprobs_are_those_of_one_unpadded_forward_pass(engine: TransformersEngine, tiny_model: Path) -> None:
    for prompt, completion in zip(PROMPTS, generate(engine, PROMPTS, SAMPLED, SEEDS), strict=True):
        tokens = [*prompt, *completion.token_ids]
        plain = plain_logprobs(tiny_model, tokens)
        assert completion.logprobs == pytest.approx(plain[len(prompt) - 1 :], abs=1e-4)
        assert engine.score(tokens) == pytest.approx(plain, abs=1e-4)


def test_a_seed_means_the_same_alone_and_in_a_batch(engine: TransformersEngine) -> None:
    together = generate(engine, PROMPTS, SAMPLED, SEEDS)
    assert [completion.token_ids for completion in together] == [
        generate(engine, [prompt], SAMPLED, [seed])[0].token_ids for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    other_seeds = generate(engine, PROMPTS, SAMPLED, [seed + 1 for seed in SEEDS])
    assert all(a.token_ids != b.token_ids for a, b in zip(together, other_seeds, strict=True))


def test_completions_without_seeds_differ_and_leave_the_global_state(engine: TransformersEngine) -> None:
    before = torch.get_rng_state()
    first, second = generate(engine, [[5, 6]] * 2, SAMPLED)
    assert first.token_ids != second.token_ids
    assert torch.equal(torch.get_rng_state(), before)


def test_an_end_token_is_kept_and_ends(engine: TransformersEngine) -> None:
    free = generate(engine, PROMPTS, SAMPLED, SEEDS)
    assert {completion.finish_reason for completion in free} == {"length"}
    end = free[0].token_ids[4]
    stopped = generate(engine, PROMPTS, Sampling(0.8, 0.9, 20, (end,)), SEEDS)
    assert stopped[0].finish_reason == "stop"
    for all_tokens, completion in zip(free, stopped, strict=True):
        cut = (*all_tokens.token_ids, end).index(end) + 1
        assert completion.token_ids == all_tokens.token_ids[:cut]


def test_context_cuts_the_completion_and_can_be_scored(engine: TransformersEngine) -> None:
    prompt = [7] * (CONTEXT - 3)
    [completion] = generate(engine, [prompt], SAMPLED, [1])
    assert (len(completion.token_ids), completion.finish_reason) == (3, "length")
    assert engine.score([*prompt, *completion.token_ids[:-1]])[-2:] == pytest.approx(completion.logprobs[:2], abs=1e-4)


@pytest.mark.parametrize("prompt", [[], [7] * CONTEXT])
def test_a_prompt_without_room_is_refused_by_the_call(engine: TransformersEngine, prompt: list[int]) -> None:
    with pytest.raises(CurioError, match=f"prompt 1 has {len(prompt)} tokens, legal are 1 to {CONTEXT - 1}"):
        engine.stream([[1], prompt], SAMPLED)


def test_new_weights_sample_as_a_fresh_engine(engine: TransformersEngine, other: Path) -> None:
    before = generate(engine, PROMPTS, SAMPLED, SEEDS)
    engine.load_weights(7, WholeWeights(AutoModelForCausalLM.from_pretrained(other)))
    after = generate(engine, PROMPTS, SAMPLED, SEEDS)
    fresh = generate(TransformersEngine(EngineSpec(other, CONTEXT, "float32")), PROMPTS, SAMPLED, SEEDS)
    assert [completion.token_ids for completion in after] == [completion.token_ids for completion in fresh]
    assert before[0].token_ids != after[0].token_ids
    assert {completion.weights_version for completion in before} == {0}
    assert {completion.weights_version for completion in after} == {7}


def test_incomplete_weights_are_refused(engine: TransformersEngine, other: Path) -> None:
    pairs = list(WholeWeights(AutoModelForCausalLM.from_pretrained(other)))
    with pytest.raises(RuntimeError, match=r"model\.norm\.weight"):
        engine.load_weights(1, [pair for pair in pairs if pair[0] != "model.norm.weight"])


def test_overrides_reach_the_model(tiny_model: Path) -> None:
    tokens = list(range(10, 50))
    overrides = {"rope_parameters": {"rope_type": "default", "rope_theta": 40.0}}
    engine = TransformersEngine(EngineSpec(tiny_model, CONTEXT, "float32", hf_overrides=overrides))
    gaps = [abs(a - b) for a, b in zip(engine.score(tokens), plain_logprobs(tiny_model, tokens), strict=True)]
    assert max(gaps) > 1e-2
