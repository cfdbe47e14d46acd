"""Prove, with the user's machine and settings, that a killed run ends with the same weights as an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curiosft_cli.run.config import load
from curiosft_cli.run.digests import file_digest
from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.run.files import is_complete
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir, StageDir

STEPS = 4
"""Optimizer steps in each half (our choice). After so many, the teacher differs from the student."""
MARK = "made-by-prove-resume"
"""File in a run folder that a proof may remove."""


@dataclass(frozen=True)
class Proof:
    """Hashes of the final weights: of an uninterrupted run, and of a run that was killed in the middle."""

    whole: str
    halves: str

    @property
    def equal(self) -> bool:
        """Whether both have the same bits."""
        return self.whole == self.halves


def prove_resume(
    reference: str, overrides: Sequence[str], launch_arguments: Sequence[str] = (), *, steps: int = STEPS
) -> Proof:
    """Train twice for 2 `steps`, the second time with `kill -9` after `steps`; compare the final weights.

    Both runs have their own folders beside the configured one. These are removed if the weights are equal.

    Raises:
        CurioError: a run failed, a folder is somebody else's, or (exit code 4) the weights differ.
    """
    config = load(reference, overrides).config
    console = Console()
    runs = [Path(config.run.root) / f"{config.run.name}-prove-{part}" for part in ("whole", "halves")]
    for run in runs:
        if run.exists() and not (run / MARK).exists():
            raise CurioError(f"{run} exists and is not of an earlier proof", "Use another run.name.")
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        (run / MARK).touch()
    hashes = []
    for run in runs:
        command = _command(reference, overrides, run, launch_arguments, steps)
        stage = RunDir(run).stage("sft")
        if run is runs[1]:
            console.say(f"prove-resume: {steps} steps, then kill -9")
            _kill_after(command, stage, steps)
        console.say(f"prove-resume: {'the rest' if run is runs[1] else f'{2 * steps} steps without a break'}")
        if code := subprocess.run(command).returncode:
            raise CurioError(f"the run in {run} ended with exit code {code}", "See its lines above.", code)
        if stage.checkpoints()[-1:] != [2 * steps]:
            raise CurioError(
                f"the run in {run} ended before step {2 * steps}: the data has too few rows for so many steps",
                "Lower sft.batch_size, or raise sft.epochs.",
            )
        hashes.append(_hash(stage.checkpoint(2 * steps)))
    proof = Proof(*hashes)
    if not proof.equal:
        raise CurioError(
            f"the resumed run's weights differ: {proof.halves} instead of {proof.whole}",
            f"Both runs are kept, {runs[0]} and {runs[1]}. On GPUs, nondeterministic kernels can be the reason.",
            GUARD,
        )
    for run in runs:
        shutil.rmtree(run)
    return proof


def _command(
    reference: str, overrides: Sequence[str], run: Path, launch_arguments: Sequence[str], steps: int
) -> list[str]:
    own = [
        f"run.root={run.parent}",
        f"run.name={run.name}",
        f"sft.max_steps={2 * steps}",
        f"sft.save_steps={steps}",
        "sft.keep_last=2",
    ]
    replaced = {setting.partition("=")[0] for setting in own}
    kept = [setting for setting in overrides if setting.partition("=")[0].strip() not in replaced]
    command = [sys.executable, "-m", "curiosft_cli.cli", "sft", reference, *kept, *own]
    return [*command, "--", *launch_arguments] if launch_arguments else command


def _kill_after(command: Sequence[str], stage: StageDir, steps: int, poll_s: float = 0.01) -> None:
    """Start the run; when the checkpoint after `steps` is complete, kill the run and all its children.

    Raises:
        CurioError: the run ended before that.
    """
    child = subprocess.Popen(command, start_new_session=True)
    while not is_complete(stage.checkpoint(steps)):
        if child.poll() is not None:
            raise CurioError(f"the run ended before step {steps} ({child.returncode})", "See its lines above.")
        time.sleep(poll_s)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _hash(checkpoint: Path) -> str:
    """First digits of the SHA-256 of a checkpoint's weights."""
    digest = hashlib.sha256()
    for file in sorted(checkpoint.glob("*.safetensors")):
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()[:16]
