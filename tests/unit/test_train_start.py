"""The guards at the start of a training: a launch that is not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.start import check_launch, check_ranks_agree

ALONE = DistributedType.NO


def accelerator(processes: int = 1, kind: DistributedType = ALONE, mixed: str = "no") -> Any:
    return SimpleNamespace(num_processes=processes, distributed_type=kind, mixed_precision=mixed)


@pytest.mark.parametrize(
    ("seen", "environment", "found", "said"),
    [
        (accelerator(), {"WORLD_SIZE": "2"}, 1, "promised 2 processes, accelerate sees 1, and 1 answer each other .NO"),
        (accelerator(2), {"WORLD_SIZE": "2"}, 1, "accelerate sees 2, and 1 answer"),
        (
            accelerator(2, DistributedType.MULTI_CPU),
            {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"},
            2,
            "sharding was asked for, and accelerate runs MULTI_CPU",
        ),
        (accelerator(mixed="bf16"), {}, 1, "mixed_precision bf16, expected no"),
    ],
)
def test_a_launch_that_lies_is_refused(seen: Any, environment: Mapping[str, str], found: int, said: str) -> None:
    with pytest.raises(CurioError, match=said):
        check_launch(seen, environment, found)


def test_a_launch_that_is_what_it_says() -> None:
    check_launch(accelerator(), {}, 1)
    sharded = {"WORLD_SIZE": "8", "ACCELERATE_USE_FSDP": "true"}
    check_launch(accelerator(8, DistributedType.FSDP), sharded, 8)


def test_weights_that_differ_between_ranks_or_are_empty_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, alone = nn.Linear(2, 2), Accelerator(cpu=True)
    check_ranks_agree(alone, model)
    monkeypatch.setattr(type(alone), "gather", lambda _, total: torch.cat([total, total + 1.0]))
    with pytest.raises(CurioError, match="the ranks hold different weights"):
        check_ranks_agree(alone, model)
    monkeypatch.undo()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(CurioError, match="the ranks hold different weights"):
        check_ranks_agree(alone, model)
