"""The hand-over: every tensor by name, in a fixed order, head included; and a check that sees a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import build_tiny_model
from transformers import AutoModelForCausalLM

from curiosft_cli.engine.weight_handover import check_handover
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.train.shards import WholeWeights


@pytest.mark.parametrize("tied", [True, False])
def test_full_state_names_every_tensor_once_in_order_with_the_head(tied: bool, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_tiny_model(tmp_path, tied=tied))
    whole = WholeWeights(model)
    pairs = list(whole)
    names = [name for name, _ in pairs]
    assert names == sorted(set(names))
    assert {name for name, _ in model.named_parameters()} <= set(names)
    state = dict(pairs)
    assert torch.equal(state["lm_head.weight"], model.get_output_embeddings().weight)
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"]) is tied
    assert not any(tensor.requires_grad for tensor in state.values())
    assert [name for name, _ in whole] == names, "it can be walked again"
    assert whole.shapes() == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in pairs]


def test_handover_reports_mean_and_max() -> None:
    """|-1 + 1.5| = 0.5 and |-2 + 2| = 0: mean 0.25, max 0.5."""
    handover = check_handover([-1.0, -2.0], [-1.5, -2.0], tolerance=0.25)
    assert (handover.mean, handover.max) == (0.25, 0.5)


@pytest.mark.parametrize("engine", [[-1.0, -2.1], [-1.0, float("nan")], [-1.0, float("-inf")]])
def test_handover_beyond_tolerance_stops_the_run(engine: list[float]) -> None:
    with pytest.raises(CurioError, match="2 tokens differ") as raised:
        check_handover(engine, [-1.0, -2.0])
    assert raised.value.exit_code == GUARD


def test_handover_of_unequal_lengths_is_a_bug() -> None:
    with pytest.raises(ValueError, match="longer"):
        check_handover([-1.0], [-1.0, -2.0])
