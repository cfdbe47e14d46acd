"""How many GPUs one copy of a model takes, how many copies there are, and what the server is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines import local_server
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.stages.evaluate import devices
from curiosft_cli.stages.evaluate.sampling import check_endpoint
from curiosft_cli.train.size import count_parameters

GB = 10**9


@pytest.mark.parametrize(
    ("weights", "heads", "gpus", "memory", "expected"),
    [
        (15 * GB, 28, 8, 72 * GB, 1),  # 7B in bfloat16 on 80 GB
        (15 * GB, 28, 8, 20 * GB, 2),  # 7B on 24 GB
        (64 * GB, 40, 8, 72 * GB, 2),  # 32B on 80 GB
        (144 * GB, 64, 8, 72 * GB, 4),  # 72B on 80 GB
        (144 * GB, 28, 6, 72 * GB, 4),  # 28 heads cannot be split by 3, 5 or 6
        (900 * GB, 64, 8, 72 * GB, 8),  # too large: vLLM says so
        (1, 14, 1, 72 * GB, 1),
    ],
)
def test_one_copy_takes_the_fewest_gpus(weights: int, heads: int, gpus: int, memory: int, expected: int) -> None:
    assert devices.devices_of_one(weights, heads, gpus, memory) == expected


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Any:
    """A machine with eight GPUs of 1 MB; what is opened on it: the kind, the spec and the number of copies."""
    import torch

    seen: list[tuple[str, EngineSpec, int]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10**6))
    monkeypatch.setattr(devices, "vllm_installed", lambda: True)
    monkeypatch.setattr(devices, "open_engine", lambda kind, spec: seen.append((kind, spec, 1)))
    monkeypatch.setattr(devices, "CopiesEngine", lambda spec, copies, log_file: seen.append(("vllm", spec, copies)))

    def open_with(*settings: str) -> tuple[str, EngineSpec, int]:
        config = load("sft", [f"model.path={tiny_model}", *settings]).config
        spec = EngineSpec(tiny_model, 64, "float32", vllm=config.eval.vllm)
        devices.open_on_all_devices("auto", config, spec, Path("log"))
        return seen[-1]

    return open_with


def test_every_gpu_gets_a_copy_or_a_part_of_one(opened: Any) -> None:
    """The tiny model has 107,072 float32 parameters, 0.43 MB, and two heads."""
    _, spec, copies = opened()
    assert (copies, dict(spec.vllm)) == (8, {"tensor_parallel_size": 1})
    _, spec, copies = opened("eval.vllm.tensor_parallel_size=4")
    assert (copies, dict(spec.vllm)) == (2, {"tensor_parallel_size": 4})
    assert opened("eval.copies=3")[2] == 3
    assert opened("eval.vllm.tensor_parallel_size=8")[2] == 1
    with pytest.raises(CurioError, match="3 copies of the model on 4 GPUs each need 12 GPUs, there are 8"):
        opened("eval.copies=3", "eval.vllm.tensor_parallel_size=4")


@pytest.mark.parametrize("engine", ["transformers", "openai"])
def test_only_vllm_has_copies(engine: str) -> None:
    config = load("sft", [f"eval.engine={engine}", "eval.copies=2"]).config
    with pytest.raises(CurioError, match=f"eval.copies is 2, but eval.engine is {engine}"):
        check_endpoint(config)


def test_the_installed_server_reads_the_further_settings() -> None:
    pytest.importorskip("vllm")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    more = {"tensor_parallel_size": 4, "enable_prefix_caching": False, "generation_config": "vllm"}
    arguments = local_server._model_arguments(EngineSpec("m", 64, "float32", vllm=more))
    read = make_arg_parser(FlexibleArgumentParser()).parse_args([*arguments, "--data-parallel-size", "2"])
    assert (read.tensor_parallel_size, read.data_parallel_size) == (4, 2)
    assert (read.enable_prefix_caching, read.generation_config) == (False, "vllm")


def test_parameters_are_counted_without_memory(tiny_model: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert count_parameters(AutoConfig.from_pretrained(tiny_model)) == model.num_parameters()
