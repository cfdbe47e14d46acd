"""A run folder under attack: a second command, signals, tampering, another version; all with real processes."""

from __future__ import annotations

import copy
import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import curiosft, last_of_each
from started import rank_process, variables

from curiosft_cli.run.log import Metrics

pytestmark = pytest.mark.e2e

SETTINGS = (
    "model.system_prompt=''", "data.train=arithmetic:train:4000", "sft.precision=float32", "sft.batch_size=4",
    "sft.max_tokens_per_batch=512", "sft.learning_rate=1e-3", "sft.save_steps=1000", "sft.head_chunk=64",
    "sft.teacher.topk=64", "launch.threads=1",
)  # fmt: skip
HACK = "open(__file__ + '.ran', 'w').close()\nraise ImportError('not the module that you want')\n"


class Sft:
    """`curiosft sft` on a tiny model, in a folder whose files have the names of Python's own modules."""

    def __init__(self, model: Path, folder: Path, *more: str) -> None:
        self.stage = folder / "runs" / "attacked" / "sft"
        self.folder = folder
        for name in ("secrets.py", "random.py", "torch.py"):
            (folder / name).write_text(HACK)
        self.arguments = [
            "curio",
            *SETTINGS,
            f"model.path={model}",
            f"run.root={folder / 'runs'}",
            "run.name=attacked",
            *more,
        ]

    def start(self, *more: str) -> subprocess.Popen[str]:
        arguments = last_of_each(*self.arguments, *more)
        return self._started([sys.executable, "-m", "curiosft_cli.cli", "sft", *arguments])

    def start_in_a_shell_loop(self) -> subprocess.Popen[str]:
        command = shlex.join([sys.executable, "-m", "curiosft_cli.cli", "sft", *self.arguments])
        return self._started(["bash", "-c", f"for n in 1 2 3; do {command}; done"])

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        # Where the tests run as a background job of a shell, Ctrl-C is ignored. A user's shell is no such job.
        heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            command, cwd=self.folder, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heeds
        )

    def here(self, *more: object, check: int | None = 0) -> str:
        """Train inside this process; returns what it printed."""
        done = curiosft("sft", *last_of_each(*self.arguments, "launch.processes=0", *more))
        assert check is None or done.returncode == check, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def steps(self) -> list[int]:
        file = self.stage / "metrics.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line)["step"] for line in lines]

    def status(self) -> dict[str, Any]:
        return json.loads((self.stage / "status.json").read_text())


def wait_for(happened: Callable[[], bool], child: subprocess.Popen[str], limit_s: float = 200) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline and child.poll() is None, "it did not happen"
        time.sleep(0.02)


def ended(child: subprocess.Popen[str], limit_s: float = 100) -> tuple[int, str]:
    said = child.communicate(timeout=limit_s)[1]
    assert "Traceback" not in said, said
    return child.returncode, said


def test_a_preempted_run_saves_its_step_and_nobody_else_works_in_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    sft = Sft(tiny_model, tmp_path)
    child = sft.start()
    wait_for(lambda: len(sft.steps()) > 0, child)
    for more in ((), ("--fresh",)):
        refused = sft.here(*more, check=2)
        assert refused.count("\n") == 1 and f"is in use by process {child.pid} on" in refused
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 75
    last = sft.steps()[-1]
    assert [path.name for path in sft.stage.glob("*checkpoint*")] == [f"checkpoint-{last}"]
    assert sft.status() == {"state": "interrupted"}
    assert not list(tmp_path.glob("*.ran")) and not (sft.stage / "lock").exists()
    readable = {path.stat().st_mode & 0o777 for path in sft.stage.rglob("*") if path.is_file()}
    assert readable == {0o666 & ~umask()}

    child = sft.start_in_a_shell_loop()
    wait_for(lambda: len(sft.steps()) > last, child)
    os.killpg(child.pid, signal.SIGINT)
    code, said = ended(child)
    assert code == -signal.SIGINT and said.count("the same command continues") == 1
    assert said.count("curio, 4000 rows") == 1
    assert sft.status() == {"state": "interrupted"}


def umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_one_of_two_ranks_dies_or_is_told_to_stop(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command also has our environment in its ranks, the second one the user's."""
    sft = Sft(tiny_model, tmp_path, "launch.processes=2")
    child = sft.start()
    wait_for(lambda: len(sft.steps()) > 0, child)
    second = rank_process(sft.stage, "1")
    assert "OMP_WAIT_POLICY=PASSIVE" in variables(second) and "OMP_NUM_THREADS=1" in variables(second)
    os.kill(second, signal.SIGKILL)
    code, said = ended(child)
    line = said.splitlines()[-1]
    assert (
        code == 1 and f"rank 1 (process {second}) was ended by SIGKILL; it held 0." in line and "GiB were free" in line
    )

    (sft.stage / "metrics.jsonl").unlink()
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    child = sft.start()
    wait_for(lambda: len(sft.steps()) > 0, child)
    assert "OMP_WAIT_POLICY=ACTIVE" in variables(rank_process(sft.stage, "1"))
    os.kill(rank_process(sft.stage, "1"), signal.SIGTERM)
    assert ended(child)[0] == 75
    assert (sft.stage / f"checkpoint-{sft.steps()[-1]}" / "COMPLETE").exists()


@pytest.fixture(scope="module")
def interrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Sft:
    """A run of four steps that gets SIGTERM in its third one; its process has no parent of ours."""
    sft = Sft(tiny_model, tmp_path_factory.mktemp("attacked"), "sft.max_steps=4")
    log = Metrics.log

    def terminate(metrics: Metrics, step: int, values: dict[str, float]) -> None:
        log(metrics, step, values)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "log", terminate)
        assert "the same command continues" in sft.here(check=75)
    assert sft.status() == {"state": "interrupted"} and sft.steps() == [1, 2, 3]
    return sft


@pytest.fixture
def attacked(interrupted: Sft, tmp_path: Path) -> Sft:
    """A copy to damage."""
    shutil.copytree(interrupted.folder, tmp_path, dirs_exist_ok=True)
    sft = copy.copy(interrupted)
    sft.folder, sft.stage = tmp_path, tmp_path / "runs" / "attacked" / "sft"
    sft.arguments = [word.replace(str(interrupted.folder), str(tmp_path)) for word in interrupted.arguments]
    return sft


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (lambda c: flip(c / "model.safetensors"), "model.safetensors was changed or damaged"),
        (lambda c: flip(c / "state" / "rank-00000.safetensors"), "rank-00000.safetensors was changed or damaged"),
        (lambda c: edit(c / "state" / "state.json", step=1), "state.json was changed or damaged"),
        (lambda c: edit(c / "config.json", rope_theta=7.0), "config.json was changed or damaged"),
        (lambda c: (c / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda c: (c / "state" / "state.json").unlink(), "state.json is missing"),
        (lambda c: (c / "COMPLETE").write_text("{}"), "lists no digests"),
        (lambda c: (c / "COMPLETE").write_text(""), "lists no digests"),
        (lambda c: (c / "COMPLETE").unlink(), "has lost its COMPLETE"),
        (lambda c: c.rename(c.with_name("checkpoint-2")), "is the checkpoint of step 3 under another name"),
        (lambda c: shutil.rmtree(c / "state"), "keeps no state"),
        (lambda c: (c.parent / "config.json").write_text("[" * 100_000), "cannot read"),
        (lambda c: edit(c.parent / "config.json", mystery={"a": 1}), "is of another version: unknown configuration key"),
    ],
)  # fmt: skip
def test_a_changed_checkpoint_is_not_continued(attacked: Sft, attack: Callable[[Path], object], says: str) -> None:
    attack(attacked.stage / "checkpoint-3")
    said = attacked.here(check=2)
    assert said.count("curiosft: ") == 1 and says in said


def test_model_check_compares_the_digests(attacked: Sft) -> None:
    checkpoint = attacked.stage / "checkpoint-3"
    assert "files as they were written" in curiosft("model", "check", checkpoint).stdout
    flip(checkpoint / "model.safetensors")
    assert "was changed or damaged after it was written" in curiosft("model", "check", checkpoint).stdout


@pytest.mark.parametrize(
    "attack",
    [
        lambda stage: (stage / "metrics.jsonl").unlink(),
        lambda stage: (stage / "metrics.jsonl").write_bytes(b"\0\xff{\n"),
        lambda stage: (stage / "metrics.jsonl").open("a").write('{"step": 4, "train/loss_nats": 0.0}\n'),
        lambda stage: edit(stage / "status.json", state="complete"),
        lambda stage: (stage / "status.json").write_text("complete"),
        lambda stage: (stage / ".metrics.jsonl.7.partial").write_text("x"),
    ],
)
def test_metrics_and_status_are_what_the_checkpoint_says(
    attacked: Sft, interrupted: Sft, attack: Callable[[Path], object]
) -> None:
    kept = (interrupted.stage / "metrics.jsonl").read_text().splitlines()
    attack(attacked.stage)
    attacked.here()
    assert attacked.steps() == [1, 2, 3, 4]
    assert (attacked.stage / "metrics.jsonl").read_text().splitlines()[:3] == kept
    assert "complete already" in attacked.here()
    assert not list(attacked.stage.glob(".*"))
    shutil.rmtree(attacked.stage / "checkpoint-4")
    assert "checkpoint-4/COMPLETE was changed or deleted" in attacked.here(check=2)


def test_fresh_removes_what_the_stage_made_and_nothing_else(attacked: Sft) -> None:
    (attacked.stage / "notes.txt").write_text("mine")
    (attacked.stage / "checkpoint-3-mine").mkdir()
    for name in ("sft", "rl", "rephrase", "SFT"):
        said = curiosft("eval", *attacked.arguments, f"eval.name={name}", "--fresh")
        assert said.returncode == 2 and "is the folder of another stage" in said.stderr
    (attacked.stage.parent / "papers").mkdir()
    (attacked.stage.parent / "papers" / "summary.json").write_text("{}")
    said = curiosft("eval", *attacked.arguments, "eval.name=papers", "eval.checkpoints=base", "--fresh")
    assert said.returncode == 2 and "is not the folder of a stage" in said.stderr
    assert (attacked.stage / "checkpoint-3").exists() and (attacked.stage.parent / "papers" / "summary.json").exists()
    said = attacked.here("--fresh", "sft.max_steps=1")
    assert "--fresh removed from" in said and "checkpoint-3, " in said
    assert (attacked.stage / "notes.txt").exists() and (attacked.stage / "checkpoint-3-mine").exists()
    assert attacked.steps() == [1] and not (attacked.stage / "checkpoint-3").exists()


def test_a_checkpoint_keeps_what_its_base_says_about_generation(attacked: Sft) -> None:
    base = attacked.folder / "base"
    shutil.copytree(attacked.stage / "checkpoint-3", base, ignore=shutil.ignore_patterns("state", "COMPLETE"))
    edit(base / "generation_config.json", temperature=0.6, top_p=0.95, do_sample=False)
    (base / "README.md").write_text("# Card\n")
    attacked.here("run.name=kept", f"model.path={base}", "sft.max_steps=1")
    made = attacked.stage.parents[1] / "kept" / "sft" / "checkpoint-1"
    settings = json.loads((made / "generation_config.json").read_text())
    assert (settings["temperature"], settings["top_p"]) == (0.6, 0.95)
    assert (made / "README.md").read_text() == "# Card\n"
    assert (made / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
