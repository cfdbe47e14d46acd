"""`curiosft eval CONFIG --from-generations FILE`: grade saved samples again, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curiosft_cli.evaluation.metrics import self_check
from curiosft_cli.evaluation.samples import SAMPLES, Generations
from curiosft_cli.evaluation.score import summarise_benchmark, write_run_summary
from curiosft_cli.evaluation.tasks import BenchmarkTask, load_task, load_tasks
from curiosft_cli.run.config import Resolved
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import present, read_json
from curiosft_cli.run.lock import locked
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir, StageDir, begin


def regrade(resolved: Resolved, source: Path, *, fresh: bool = False) -> None:
    """Grade these samples and write the results to the run's folder `eval.name`.

    Args:
        resolved: names checkpoints, benchmarks and grader. If `eval.samples` is None, as many samples are graded as
            every question has.
        source: a samples.jsonl or .jsonl.zst (for one checkpoint and one benchmark), or the folder of an evaluation.

    Raises:
        CurioError: samples are missing, or the folder has results of other settings.
    """
    config = resolved.config
    self_check()
    _check_source(source, config.eval.checkpoints, config.eval.benchmarks)
    places = StageDir(source)
    work: list[tuple[str, BenchmarkTask, Generations, Path]] = []
    for reference in config.eval.checkpoints:
        for task in load_tasks(config):
            file = source if source.is_file() else present(places.benchmark(reference, task.name) / SAMPLES)
            if not file.exists():
                raise CurioError(f"{file} does not exist", "Name the checkpoints and benchmarks that were sampled.")
            generations = Generations(file, task.problems)
            count = config.eval.samples or generations.complete_samples()
            if not count:
                lacking = task.problems[generations.missing(1)[0][0]].id
                raise CurioError(f"{file} has no sample of question {lacking}", "Set eval.limit, or sample it first.")
            work.append((reference, load_task(config, task.name, count), generations, file.parent))
    run = RunDir(Path(config.run.root) / config.run.name)
    target = run.stage(config.eval.name).path
    if fresh and target.resolve() in (source.resolve(), *source.resolve().parents):
        raise CurioError(f"--fresh would remove the samples in {source}", "Leave it out, or use another eval.name.")
    with locked(target):
        stage, _ = begin(run, "eval", config, fresh=fresh, folder=config.eval.name)
        run.keep_source(resolved.source)
        console = Console(stage.log_file)
        for reference, task, generations, origin in work:
            folder = stage.benchmark(reference, task.name)
            folder.mkdir(parents=True, exist_ok=True)
            summarise_benchmark(
                config,
                folder,
                task,
                generations,
                reference=reference,
                model=_model(origin, reference),
                entropy=None,
                hardware={},
                console=console,
            )
        console.close()
        write_run_summary(config, stage)
        stage.set_status("complete")


def _model(origin: Path, reference: str) -> dict[str, Any]:
    """The model that drew the samples: model.json beside them, or the checkpoint's name where there is none."""
    file = origin / "model.json"
    return read_json(file) if file.exists() else {"path": reference}


def _check_source(source: Path, checkpoints: Sequence[str], benchmarks: Sequence[str]) -> None:
    """Check that the source of the samples fits the configuration.

    Raises:
        CurioError: it does not exist, or it is one file for several checkpoints or benchmarks.
    """
    if not source.exists():
        raise CurioError(f"--from-generations {source} does not exist", "Name a file of samples or an eval folder.")
    if source.is_file() and (len(checkpoints), len(benchmarks)) != (1, 1):
        raise CurioError(
            f"--from-generations {source} is one file, the configuration names {len(checkpoints)} checkpoints and "
            f"{len(benchmarks)} benchmarks",
            "Set eval.checkpoints and eval.benchmarks to one each, or name an eval folder.",
        )
