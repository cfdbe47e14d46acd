"""The quickstart's GGUF model becomes an ordinary folder: the same weights to the bit, the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import build_family
from tiny_gguf import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Config
from curiosft_cli.tools import quickstart_model as module
from curiosft_cli.tools.model.check import check_model

QUIET = Console(enabled=False)


@pytest.mark.parametrize("tied", [True, False])
def test_the_unpacked_folder_has_the_weights_and_tokens_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    source = build_family(tmp_path / "source", "llama", tied=tied)
    file = write_gguf(source, tmp_path / "model.gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_download", lambda folder: file)
    folder = Path(load("quickstart").config.model.path)
    assert folder == tmp_path / "cache" / "curiosft" / "smollm2-135m-instruct"
    module.require_quickstart_model(str(source), QUIET, tmp_path / "log.txt")
    assert not folder.exists()
    module.require_quickstart_model(str(folder), QUIET, tmp_path / "log.txt")
    models: list[Any] = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (folder, source)]
    ours, theirs = (dict(model.named_parameters()) for model in models)
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    original: Any = AutoTokenizer.from_pretrained(source)
    text = "Let $x^2 = 2$. Then <think> some words and 12345"
    assert tokenizer.encode(text) == original.encode(text)
    monkeypatch.setattr(module, "_download", lambda folder: pytest.fail("downloaded twice"))
    module.require_quickstart_model(str(folder), QUIET, tmp_path / "log.txt")


def test_a_gguf_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CurioError, match="with safetensors weights") as caught:
        check_model(str(tmp_path / "model.gguf"), Config())
    assert "\n" not in str(caught.value)
