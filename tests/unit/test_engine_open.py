"""Which engine opens, in which number format, and what a missing vLLM says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curiosft_cli.engine.checks import check_more
from curiosft_cli.engine.open_engine import open_engine
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.transformers_engine import TransformersEngine
from curiosft_cli.engine.vllm_engines import embedded as vllm
from curiosft_cli.run import device
from curiosft_cli.run.device import cpu_multiplies_bfloat16, resolve_dtype
from curiosft_cli.run.errors import MISSING, CurioError


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "vllm_installed", lambda: False)


@pytest.mark.usefixtures("no_vllm")
def test_vllm_asked_for_and_missing_names_the_installation(tiny_model: Path) -> None:
    with pytest.raises(CurioError, match="pip install") as raised:
        open_engine("vllm", EngineSpec(tiny_model, 32))
    assert raised.value.exit_code == MISSING


@pytest.mark.usefixtures("no_vllm")
def test_auto_falls_back_to_transformers(tiny_model: Path) -> None:
    engine = open_engine("auto", EngineSpec(tiny_model, 32, "float32"))
    assert isinstance(engine, TransformersEngine)
    engine.close()


@pytest.mark.parametrize(
    ("flags", "dtype"), [("fpu avx2 avx512_bf16 ssse3", "bfloat16"), ("fpu avx2 avx512f", "float32")]
)
def test_auto_dtype_asks_the_processor(flags: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")

    def flags_from(name: str) -> None:
        monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: cpu_multiplies_bfloat16(tmp_path / name))

    flags_from("cpuinfo")
    assert resolve_dtype("auto") == dtype
    flags_from("absent")
    assert resolve_dtype("auto") == "float32"
    assert resolve_dtype("bfloat16") == "bfloat16"


def test_further_settings_of_vllm_are_its_own_and_free() -> None:
    known = ["max_model_len", "tensor_parallel_size"]
    check_more({"tensor_parallel_size": 2}, known[:1], known)
    with pytest.raises(CurioError, match="vLLM's setting max_model_len is not free"):
        check_more({"max_model_len": 9}, known[:1], known)
    with pytest.raises(CurioError, match=r"no setting tensor_parallel.*did you mean 'tensor_parallel_size'"):
        check_more({"tensor_parallel": 2}, known[:1], known)
