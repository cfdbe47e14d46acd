"""The guards at the start of a training: a launch that is not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.start import check_launch, refuse_plugins

ALONE = DistributedType.NO


def accelerator(processes: int = 1, kind: DistributedType = ALONE, mixed: str = "no") -> Any:
    return SimpleNamespace(num_processes=processes, distributed_type=kind, mixed_precision=mixed)


@pytest.mark.parametrize(
    ("seen", "environment", "found", "said"),
    [
        (accelerator(), {"WORLD_SIZE": "2"}, 1, "promised 2 processes, accelerate sees 1, and 1 answer each other .NO"),
        (accelerator(2), {"WORLD_SIZE": "2"}, 1, "accelerate sees 2, and 1 answer"),
        (accelerator(mixed="bf16"), {}, 1, "mixed_precision bf16, expected no"),
    ],
)
def test_a_launch_that_lies_is_refused(seen: Any, environment: Mapping[str, str], found: int, said: str) -> None:
    with pytest.raises(CurioError, match=said):
        check_launch(seen, environment, found)


def test_a_launch_that_is_what_it_says() -> None:
    check_launch(accelerator(), {}, 1)
    check_launch(accelerator(8, DistributedType.MULTI_GPU), {"WORLD_SIZE": "8", "ACCELERATE_USE_FSDP": "false"}, 8)


@pytest.mark.parametrize("plugin", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_plugin_of_accelerate_is_refused(plugin: str) -> None:
    refuse_plugins({f"ACCELERATE_USE_{plugin}": "false"})
    with pytest.raises(CurioError, match=rf"{plugin} plugin.*launch\.shard"):
        refuse_plugins({f"ACCELERATE_USE_{plugin}": "true"})
