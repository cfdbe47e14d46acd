"""GGUF files become ordinary folders: every weight in its place, in as many shards as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import build_family
from tiny_gguf import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import write_json
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Config
from curiosft_cli.tools.model.check import check_model
from curiosft_cli.tools.model.gguf_source import gguf_config, write_gguf_weights
from curiosft_cli.tools.model.prepare import prepare_model
from curiosft_cli.tools.model.weights import read_tensors

QUIET = Console(enabled=False)


def same_weights(ours: Path, theirs: Path) -> None:
    opened: list[Any] = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (ours, theirs)]
    pairs = [dict(model.named_parameters()) for model in opened]
    assert set(pairs[0]) == set(pairs[1])
    for name, weight in pairs[1].items():
        assert torch.equal(pairs[0][name], weight.bfloat16().float()), name


@pytest.mark.parametrize(("family", "tied"), [("qwen2", True), ("qwen3", False), ("llama", True), ("llama", False)])
def test_a_gguf_file_becomes_a_prepared_folder(tmp_path: Path, family: str, tied: bool) -> None:
    source = build_family(tmp_path / "source", family, tied=tied)
    file = write_gguf(source, tmp_path / "model.gguf", family)
    prepare_model(str(file), tmp_path / "out", Config(), QUIET)
    same_weights(tmp_path / "out", source)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    original: Any = AutoTokenizer.from_pretrained(source)
    text = "Let $x^2 = 2$. Then <think> some words and 12345"
    assert tokenizer.encode(text) == original.encode(text)
    assert not [r for r in check_model(str(tmp_path / "out"), Config()) if r.level == "problem"]
    assert "dequantised from GGUF" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(CurioError, match="is a GGUF file"):
        check_model(str(file), Config())


def test_shards_are_closed_when_they_are_full(tmp_path: Path) -> None:
    source = build_family(tmp_path / "source", "llama", tied=False)
    file = write_gguf(source, tmp_path / "model.gguf", "llama")
    out = tmp_path / "out"
    out.mkdir()
    write_json(out / "config.json", gguf_config(file))
    size = write_gguf_weights(file, out, out, lambda done, of: None, shard_bytes=60_000)
    shards = sorted(out.glob("model-*-of-*.safetensors"))
    assert len(shards) > 3
    assert all(shard.stat().st_size < 70_000 for shard in shards)
    assert size == sum(2 * int(np.prod(tensor.shape)) for tensor in read_tensors(out).values())
    same_weights(out, source)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    source = build_family(tmp_path / "source", "llama")
    scaled = write_gguf(source, tmp_path / "scaled.gguf", "llama", extra={"rope_freqs.weight": np.ones(8, np.float32)})
    lacking = write_gguf(source, tmp_path / "lacking.gguf", "llama", leave_out="blk.1.ffn_up.weight")
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(scaled.read_bytes()[:3000])
    for file, says in (
        (scaled, "rope_freqs.weight"), (lacking, "lacks 1 tensors, e.g. blk.1.ffn_up.weight"),
        (text, "is not a GGUF file"), (cut, "not a whole GGUF file"), (tmp_path / "no.gguf", "there is no file"),
        (tmp_path, "has 4 GGUF files"),
    ):  # fmt: skip
        with pytest.raises(CurioError, match=says) as caught:
            prepare_model(str(file), tmp_path / "out", Config(), QUIET)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
