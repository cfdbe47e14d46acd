"""The embedded vLLM engine against transformers, and its weights, seeds and limits, in float32."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build_tiny_model

from curiosft_cli.engine.base import Completion, Sampling, generate
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.transformers_engine import TransformersEngine
from curiosft_cli.engine.weight_handover import check_handover
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.train.shards import WholeWeights

pytest.importorskip("vllm")
pytestmark = pytest.mark.e2e

from curiosft_cli.engine.vllm_engines.cpu_tuning import CPU_BLOCK_TOKENS  # noqa: E402
from curiosft_cli.engine.vllm_engines.embedded import VllmEngine  # noqa: E402

CONTEXT = 512
LONG = [17 + i % 400 for i in range(300)]  # many blocks of the CPU's cache
PROMPTS = [[5, 6, 7], LONG, [9], [*LONG[:200], 3, 4]]
SEEDS = [11, 12, 13, 14]
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24, stop_token_ids=())
SAMPLED = Sampling(temperature=0.8, top_p=0.9, max_tokens=24, stop_token_ids=())


def open_vllm(folder: Path, cpu_kv_cache_gib: float = 0.05) -> VllmEngine:
    spec = EngineSpec(folder, CONTEXT, "float32", cpu_kv_cache_gib=cpu_kv_cache_gib)
    return VllmEngine(spec, cpu_batched_tokens=CONTEXT)


def tokens(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def state(folder: Path) -> list[tuple[str, torch.Tensor]]:
    from transformers import AutoModelForCausalLM

    return list(WholeWeights(AutoModelForCausalLM.from_pretrained(folder)))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape with different weights."""
    root = tmp_path_factory.mktemp("vllm")
    first, second = (
        build_tiny_model(root / str(seed), tied=request.param, max_positions=CONTEXT, seed=seed) for seed in (0, 1)
    )
    return first, second


@pytest.fixture(scope="module")
def fresh(folders: tuple[Path, Path]) -> list[Completion]:
    """Greedy completions of an engine that never held other weights than the second."""
    engine = open_vllm(folders[1])
    try:
        return generate(engine, PROMPTS, GREEDY)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path], fresh: list[Completion]) -> Iterator[VllmEngine]:
    """Holds the first weights; a test that changes them puts them back. One engine at a time."""
    engine = open_vllm(folders[0])
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(folders: tuple[Path, Path]) -> TransformersEngine:
    """The first weights in transformers."""
    return TransformersEngine(EngineSpec(folders[0], CONTEXT, "float32"))


def test_logprobs_are_those_of_transformers(engine: VllmEngine, plain: TransformersEngine) -> None:
    for prompt, completion in zip(PROMPTS, generate(engine, PROMPTS, SAMPLED, SEEDS), strict=True):
        sequence = [*prompt, *completion.token_ids]
        expected = plain.score(sequence)
        assert completion.logprobs == pytest.approx(expected[len(prompt) - 1 :], abs=1e-3)
        assert engine.score(sequence) == pytest.approx(expected, abs=1e-3)


def test_greedy_answers_are_those_of_transformers(engine: VllmEngine, plain: TransformersEngine) -> None:
    assert tokens(generate(engine, PROMPTS, GREEDY)) == tokens(generate(plain, PROMPTS, GREEDY))


def test_seeds_repeat_differ_and_do_not_depend_on_the_batch(engine: VllmEngine) -> None:
    together = generate(engine, PROMPTS, SAMPLED, SEEDS)
    assert generate(engine, PROMPTS, SAMPLED, SEEDS) == together
    assert tokens(together[:1]) == tokens(generate(engine, PROMPTS[:1], SAMPLED, SEEDS[:1]))
    group = generate(engine, [PROMPTS[0]] * 8, SAMPLED, list(range(8)))
    assert len(set(tokens(group))) == 8
    bare = generate(engine, PROMPTS, replace(SAMPLED, with_logprobs=False), SEEDS)
    assert tokens(bare) == tokens(together) and not any(completion.logprobs for completion in bare)


def test_completions_without_seeds_differ_and_leave_the_global_state(engine: VllmEngine) -> None:
    before = torch.get_rng_state(), random.getstate()
    assert len(set(tokens(generate(engine, [PROMPTS[0]] * 8, SAMPLED)))) == 8
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_the_nucleus_draws_what_vllms_own_would(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(temperature=1.5, top_p=0.6, max_tokens=100, stop_token_ids=())
    ours = generate(engine, PROMPTS, sampling, SEEDS)
    monkeypatch.setattr(engine, "_nucleus", lambda top_p: {"top_p": top_p})
    assert generate(engine, PROMPTS, sampling, SEEDS) == ours
    free = Sampling(temperature=1.5, top_p=1.0, max_tokens=100, stop_token_ids=())
    assert tokens(generate(engine, PROMPTS, free, SEEDS)) != tokens(ours)


def test_only_the_given_end_tokens_end_and_are_kept(engine: VllmEngine) -> None:
    free = generate(engine, PROMPTS, SAMPLED, SEEDS)
    assert {completion.finish_reason for completion in free} == {"length"}
    end = free[1].token_ids[5]
    stopped = generate(engine, PROMPTS, Sampling(0.8, 0.9, 24, (end,)), SEEDS)
    assert stopped[1].finish_reason == "stop"
    for everything, completion in zip(free, stopped, strict=True):
        assert completion.token_ids == everything.token_ids[: (*everything.token_ids, end).index(end) + 1]


def test_the_models_own_end_token_does_not_end(engine: VllmEngine) -> None:
    """<|im_end|> (2) ends only where the caller lists it, though the model's configuration names it."""
    uniform = Sampling(temperature=2.0, top_p=1.0, max_tokens=400, stop_token_ids=())
    completions = generate(engine, [[5]] * 8, uniform, list(range(8)))
    assert any(2 in completion.token_ids[:-1] for completion in completions)
    assert {len(completion.token_ids) for completion in completions} == {400}


def test_context_cuts_the_completion_and_can_be_scored(engine: VllmEngine) -> None:
    prompt = (LONG * 2)[: CONTEXT - 3]
    [completion] = generate(engine, [prompt], SAMPLED, [1])
    assert (len(completion.token_ids), completion.finish_reason) == (3, "length")
    assert engine.score([*prompt, *completion.token_ids[:-1]])[-2:] == pytest.approx(completion.logprobs[:2], abs=1e-4)


@pytest.mark.parametrize("prompt", [[], [7] * CONTEXT, [7] * (CONTEXT + 1)], ids=len)
def test_a_prompt_without_room_is_refused_by_the_call(engine: VllmEngine, prompt: list[int]) -> None:
    with pytest.raises(CurioError, match=f"prompt 1 has {len(prompt)} tokens"):
        engine.stream([[1], prompt], SAMPLED)
    assert len(generate(engine, [[1]], SAMPLED)) == 1


def test_completions_of_one_prompt_compute_it_once(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that went through the model: all of the prompt once, and less than a block of it for each other copy."""
    executor = engine._engine("ready").model_executor
    scheduled: list[int] = []
    execute = executor.execute_model

    def counted(output: Any, *arguments: Any, **named: Any) -> Any:
        scheduled.append(output.total_num_scheduled_tokens)
        return execute(output, *arguments, **named)

    assert engine._engine("ready").reset_prefix_cache()
    monkeypatch.setattr(executor, "execute_model", counted)
    generate(engine, [LONG] * 8, Sampling(1.0, 1.0, 4, ()), list(range(8)))
    assert len(LONG) <= sum(scheduled) < len(LONG) + 7 * CPU_BLOCK_TOKENS + 8 * 4


def test_many_long_seeded_prompts_survive(engine: VllmEngine) -> None:
    """32 prompts of some 400 tokens each exceed a pass of 512 tokens, which would split a prefill."""
    prompts = [[(i * j) % 500 for j in range(380 + i)] for i in range(1, 33)]
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=90, stop_token_ids=())
    completions = generate(engine, prompts, sampling, list(range(32)))
    assert {len(completion.token_ids) for completion in completions} == {90}
    assert completions[-1].token_ids == generate(engine, prompts[-1:], sampling, [31])[0].token_ids


def test_a_stream_left_early_aborts_and_two_at_once_are_refused(engine: VllmEngine) -> None:
    nearly_full = (LONG * 2)[: CONTEXT - 2]
    stream = engine.stream([[1], nearly_full], Sampling(0.8, 0.9, 200, ()), SEEDS[:2])
    index, completion = next(stream)
    assert (index, len(completion.token_ids)) == (1, 2)
    with pytest.raises(RuntimeError, match="still open"):
        next(engine.stream([[1]], SAMPLED))
    with pytest.raises(RuntimeError, match="while completions are running"):
        engine.load_weights(1, [])
    del stream
    assert len(generate(engine, PROMPTS, SAMPLED)) == len(PROMPTS)


def test_new_weights_answer_as_a_fresh_engine(
    engine: VllmEngine, folders: tuple[Path, Path], fresh: list[Completion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of several cache blocks are cached first, so that a stale prefix would show; and it does."""
    before = generate(engine, PROMPTS, GREEDY)
    engine.load_weights(3, iter(state(folders[1])))
    after = generate(engine, PROMPTS, GREEDY)
    assert tokens(after) == tokens(fresh)
    for ours, theirs in zip(after, fresh, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    assert tokens(before) != tokens(after)
    assert {completion.weights_version for completion in after} == {3}

    with monkeypatch.context() as patch:
        patch.setattr(engine._live, "reset_prefix_cache", lambda: True)
        engine.load_weights(4, iter(state(folders[0])))
    assert tokens(generate(engine, PROMPTS, GREEDY)) != tokens(before)
    engine.load_weights(0, iter(state(folders[0])))
    assert tokens(generate(engine, PROMPTS, GREEDY)) == tokens(before)


def test_a_hand_over_without_the_head_is_caught(engine: VllmEngine, folders: tuple[Path, Path]) -> None:
    trainer = TransformersEngine(EngineSpec(folders[1], CONTEXT, "float32"))
    pairs = state(folders[1])
    engine.load_weights(1, iter(pairs))
    assert check_handover(engine.score(LONG), trainer.score(LONG)).max < 1e-3
    engine.load_weights(0, iter(state(folders[0])))
    engine.load_weights(1, iter(pair for pair in pairs if pair[0] != "lm_head.weight"))
    with pytest.raises(CurioError) as raised:
        check_handover(engine.score(LONG), trainer.score(LONG))
    assert raised.value.exit_code == GUARD
    engine.load_weights(0, iter(state(folders[0])))


def test_an_eager_engine_compiles_nothing(engine: VllmEngine) -> None:
    """So that no C++ compiler is needed."""
    from torch._dynamo.utils import counters

    counters.clear()
    generate(engine, PROMPTS, SAMPLED, SEEDS)
    generate(engine, PROMPTS[:2], Sampling(1.0, 1.0, 4, ()), SEEDS[:2])
    assert not counters["frames"]


def test_sleep_and_wake_are_harmless(engine: VllmEngine) -> None:
    before = generate(engine, PROMPTS, GREEDY)
    engine.sleep()
    engine.wake()
    assert generate(engine, PROMPTS, GREEDY) == before


def test_a_failed_hand_over_ends_the_engine(engine: VllmEngine, folders: tuple[Path, Path]) -> None:
    """Last test of the module: it breaks the engine."""
    names = iter(state(folders[0])[:3])

    def torn() -> Iterator[tuple[str, torch.Tensor]]:
        yield from names
        raise OSError("the trainer died")

    with pytest.raises(OSError, match="the trainer died"):
        engine.load_weights(9, torn())
    with pytest.raises(RuntimeError, match="broken"):
        generate(engine, PROMPTS, GREEDY)
    with pytest.raises(RuntimeError, match="broken"):
        engine.load_weights(9, iter(state(folders[0])))
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.score([1, 2])

    with pytest.raises(CurioError, match=r"cache is too small for one sequence .*Raise kv_cache_gib"):
        open_vllm(folders[0], cpu_kv_cache_gib=1e-4)
    with pytest.raises(CurioError, match=r"cache does not fit in memory .*100000\.0 GiB.*Lower kv_cache_gib"):
        open_vllm(folders[0], cpu_kv_cache_gib=1e5)
