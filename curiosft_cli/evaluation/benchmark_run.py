"""The text side of an evaluation: what is asked for, what is done already, and the summaries of what was sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curiosft_cli.data.benchmarks import BENCHMARKS, load_benchmark
from curiosft_cli.data.records import Problem
from curiosft_cli.evaluation.fingerprint import data_commit, grader_identity, questions_digest
from curiosft_cli.evaluation.results import QUESTIONS, SUMMARY, suite_averages
from curiosft_cli.evaluation.samples import SAMPLES, Generations
from curiosft_cli.evaluation.score import clean_numbers, contaminated_ids, score_samples
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import compress_jsonl, present, read_jsonl, write_json
from curiosft_cli.run.log import Console, environment
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config

# A benchmark whose summary was made with other values of these is summarised again from its samples.
SUMMARISED_WITH = ("limit", "pass_k", "entropy_samples", "grader", "contamination")


@dataclass(frozen=True)
class Asked:
    """One benchmark as the configuration asks for it."""

    name: str
    problems: list[Problem]
    samples: int
    pass_k: tuple[int, ...]
    contaminated: frozenset[str] | None = None

    @classmethod
    def of(cls, config: Config, name: str, samples: int | None = None) -> Asked:
        """Load a benchmark's questions and settle the number of samples.

        Raises:
            CurioError: it cannot be loaded, Pass@k is asked for with more than there are samples, or the report of
            `eval.contamination` is not about these questions.
        """
        problems = questions(config, name, config.eval.limit)
        count = samples or config.eval.samples or BENCHMARKS[name].samples
        return cls(name, problems, count, _pass_k(config, name, count), _contaminated(config, name, problems))


def questions(config: Config, name: str, limit: int | None) -> list[Problem]:
    """The first `limit` questions of a benchmark, from where and as `[eval]` has them read.

    Raises:
        CurioError: the benchmark does not exist or cannot be loaded.
    """
    settings = config.eval
    return load_benchmark(name, data=settings.data.get(name), limit=limit, keep_system=settings.keep_system)


def ask(config: Config) -> list[Asked]:
    """All benchmarks of the configuration; see `Asked.of`.

    Raises:
        CurioError: also when `eval.data` names a benchmark that does not exist: its file would never be read.
    """
    for name in config.eval.data:
        if name not in BENCHMARKS:
            raise CurioError(f"eval.data.{name}: benchmark '{name}' does not exist", nearest(name, BENCHMARKS))
    return [Asked.of(config, name) for name in config.eval.benchmarks]


def is_summarised(folder: Path, asked: Asked, config: Config) -> bool:
    """Whether this benchmark's summary is there and is the one asked for."""
    file = folder / SUMMARY
    if not file.exists():
        return False
    made = json.loads(file.read_text(encoding="utf-8"))
    settings = config.eval.model_dump(mode="json")
    same = all(made.get("settings", {}).get(key) == settings[key] for key in SUMMARISED_WITH)
    return same and (made["samples"], made["questions"]) == (asked.samples, len(asked.problems))


def summarise_benchmark(
    config: Config,
    folder: Path,
    asked: Asked,
    generations: Generations,
    *,
    reference: str,
    model: Mapping[str, Any],
    entropy: Mapping[str, float] | None,
    hardware: Mapping[str, Any],
    console: Console,
) -> None:
    """Grade the saved samples and write grades.jsonl.zst, questions.jsonl and, last, summary.json.

    Samples that lie in the same folder are complete by now and are compressed.
    """
    title = f"{reference} on {asked.name}: graded"
    with GraderPool(config.eval.grader_workers) as pool:
        numbers = score_samples(
            generations,
            asked.problems,
            asked.samples,
            folder,
            pool,
            grader=config.eval.grader,
            prefilled=prefill(config) != "",
            pass_k=asked.pass_k,
            progress=lambda done, total: console.progress(done, total, title),
        )
    hub = BENCHMARKS[asked.name].hub
    local = config.eval.data.get(asked.name)
    if local or not hub:
        source = {"file": local} if local else {"built_in": True}
    else:
        source = {"hub": hub.name, "revision": hub.revision or "main", "commit": data_commit(hub.name, hub.revision)}
    mine = generations.path == folder / SAMPLES
    samples = compress_jsonl(generations.path) if mine else generations.path
    summary = {
        "checkpoint": reference,
        "model": dict(model),
        "benchmark": asked.name,
        **numbers,
        "clean": None
        if asked.contaminated is None
        else clean_numbers(read_jsonl(folder / QUESTIONS), asked.contaminated),
        "entropy_nats": entropy["token_mean"] if entropy else None,
        "entropy_seq_mean_nats": entropy["seq_mean"] if entropy else None,
        "grader": grader_identity(config.eval.grader),
        "settings": config.eval.model_dump(mode="json") | {"seed": config.run.seed},
        "prompt": {**config.model.model_dump(include={"system_prompt", "question_prefix"}), "prefill": prefill(config)},
        "data": {**source, "sha256": questions_digest(asked.problems)},
        "generations": str(samples),
        "environment": {**environment(), **hardware},
    }
    write_json(folder / SUMMARY, summary)


def write_run_summary(config: Config, stage: StageDir) -> dict[str, Any]:
    """Collect the summaries of all checkpoints and benchmarks, with the averages of the paper's two suites."""
    rows = [
        json.loads((stage.benchmark(reference, name) / SUMMARY).read_text(encoding="utf-8"))
        for reference in config.eval.checkpoints
        for name in config.eval.benchmarks
    ]
    averages = {
        reference: suite_averages([row for row in rows if row["checkpoint"] == reference])
        for reference in config.eval.checkpoints
    }
    summary = {"results": rows, "averages": averages}
    write_json(stage.path / SUMMARY, summary)
    return summary


def prefill(config: Config) -> str:
    """What the prompts put at the start of the completion; a chat takes no beginning of its answer."""
    return "" if config.eval.endpoint == "chat" else config.model.prefill


def claim(folder: Path, model: Mapping[str, Any]) -> None:
    """Say which model the samples of this folder come from, or refuse when they come from another.

    Raises:
        CurioError: samples are there, of a model with other weights.
    """
    file = folder / "model.json"
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if _content(known) != _content(model) and present(folder / SAMPLES).exists():
            raise CurioError(
                f"the samples in {folder} were drawn from {_named(known)}, this is {_named(model)}",
                "Use another eval.name, or --fresh to sample again.",
            )
    write_json(file, dict(model))


def _pass_k(config: Config, name: str, samples: int) -> tuple[int, ...]:
    if config.eval.pass_k is None:
        powers = (2**power for power in range(samples.bit_length()))
        return tuple(sorted({k for k in powers if k <= samples} | {samples}))
    if too_large := [k for k in config.eval.pass_k if not 0 < k <= samples]:
        raise CurioError(
            f"eval.pass_k holds {too_large[0]}, but {name} has {samples} sample{'s' if samples > 1 else ''} a question",
            f"Set eval.samples to at least {max(too_large)}, or leave such k out.",
        )
    return tuple(config.eval.pass_k)


def _contaminated(config: Config, name: str, problems: Sequence[Problem]) -> frozenset[str] | None:
    if config.eval.contamination is None:
        return None
    known = None if config.eval.limit else [problem.id for problem in problems]
    return frozenset(contaminated_ids(Path(config.eval.contamination), name, known))


def _content(model: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a model from another: a folder with the same digest may have moved."""
    return {key: value for key, value in model.items() if key != "path" or "sha256" not in model}


def _named(model: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {str(value)[:60]}" for key, value in model.items())


def checked_source(source: Path, checkpoints: Sequence[str], benchmarks: Sequence[str]) -> None:
    """Refuse a source of generations that cannot be told apart.

    Raises:
        CurioError: it does not exist, or one file is to serve several checkpoints or benchmarks.
    """
    if not source.exists():
        raise CurioError(f"--from-generations {source} does not exist", "Name a file of samples or an eval folder.")
    if source.is_file() and (len(checkpoints), len(benchmarks)) != (1, 1):
        raise CurioError(
            f"--from-generations {source} is one file, the configuration names {len(checkpoints)} checkpoints and "
            f"{len(benchmarks)} benchmarks",
            "Set eval.checkpoints and eval.benchmarks to one each, or name an eval folder.",
        )
