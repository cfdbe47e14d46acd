"""`curiosft choose RUN [RUN ...]`: which checkpoint of sft should rl start from?

    for each kept checkpoint of each run:
        Avg@k, Pass@G, questions without a signal     from the evaluation that covers most checkpoints
        held-out loss, entropy of the top 20 %        from what the training logged
    recommend one, say why, and say how to get what is missing

G is the group size of rl. The accuracy after sft predicts that after rl badly; Pass@k at a large k and the held-out
loss predict it better (arXiv 2510.01624, 2512.11470).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from curiosft_cli.evaluation.fingerprint import recorded_identity
from curiosft_cli.run.config import Resolved, from_json, parse_overrides, resolve
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import write_json
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import RunDir
from curiosft_cli.run.sections import Config
from curiosft_cli.run.text import one_line
from curiosft_cli.tools.choose.evidence import (
    SAMPLING,
    Candidate,
    Evidence,
    best_evidence,
    candidates_of,
    held_out_losses,
)
from curiosft_cli.tools.choose.recommend import Assessment, recommend, row_of
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.tools.tables import as_text

NAME = "choose"
"""Of the evaluation that `--sample` draws."""
HELD_OUT = "eval/loss_nats"
ENTROPIES = {"held-out rows": "eval/entropy_top20_nats", "the training rows of its step": "train/entropy_top20_nats"}


def choose(words: Sequence[str], *, sample: bool = False, as_json: bool = False) -> str:
    """The table, a recommendation with its reason, and how to get what is missing.

    Args:
        words: runs, by folder or by name in runs/; and settings as `section.key=value`.
        sample: first draw as many samples as a group has, as rl draws them, from every checkpoint that lacks them.

    Raises:
        CurioError: no run is named, there is no such run, or it has no checkpoint.
    """
    runs = [_folder(word) for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not runs:
        raise CurioError("no run is named", "Write curiosft choose RUN [RUN ...].")
    if len({run.name for run in runs}) < len(runs):
        raise CurioError("two of the runs have one name, so their checkpoints would too", "Rename one of the folders.")
    candidates = [one for run in runs for one in candidates_of(run)]
    if sample:
        for run in runs:
            run_stages(_sampling(run, [one.step for one in candidates if one.run == run], settings), ("eval",))
        measure_held_out(candidates, _resolved(runs[0], settings).config)
    rl = _resolved(runs[0], settings).config.rl
    group = rl.num_generations
    evidence = best_evidence(candidates, runs, group, NAME)
    entropy_of, rows = _rows(candidates, evidence, group)
    chosen, reason = recommend(rows, group)
    notes = [
        *_origins(evidence, entropy_of, rows),
        *_doubts(evidence, tuple(getattr(rl, key) for key in SAMPLING)),
        *_missing(rows, shlex.join(words), group),
    ]
    if as_json:
        listed = [{key: value for key, value in asdict(row).items() if key != "each"} for row in rows]
        found = {"group": group, "rows": listed, "recommended": chosen, "reason": reason, "notes": notes}
        return json.dumps(found, ensure_ascii=False)
    then = [f"next: curiosft rl CONFIG run.name=NAME {_start(one)}" for one in candidates if one.reference == chosen]
    return "\n".join([table(rows, group), "", *map(one_line, [reason, *notes, *then])])


def measure_held_out(candidates: Sequence[Candidate], config: Config) -> None:
    """Save the loss of every checkpoint on the same held-out rows, where one has none from its training.

    Without `data.validation` nothing is measured.

    Raises:
        CurioError: a held-out row cannot be read or has no response.
    """
    if not config.data.validation or all(HELD_OUT in one.metrics for one in candidates):
        return
    from curiosft_cli.data.sources import read_numbered
    from curiosft_cli.train.encode import PromptFormat
    from curiosft_cli.train.entropy import held_out_loss
    from curiosft_cli.train.feed import with_response

    console, style = Console(), PromptFormat.from_config(config.model)
    for number, one in enumerate(candidates, start=1):
        found = read_numbered(config.data, [], run_dir=one.run, sources=config.data.validation)
        placed = ((f"held-out row {row}", raw, problem) for _, row, raw, problem in found)
        checkpoint = one.stage.checkpoint(one.step)
        loss = held_out_loss(str(checkpoint), config, with_response(placed, style, None))
        write_json(one.measured, {"of": recorded_identity(checkpoint), HELD_OUT: loss})
        console.progress(number, len(candidates), "held-out loss: checkpoints")
    console.close()


def table(rows: Sequence[Assessment], group: int) -> str:
    """One line a checkpoint."""
    header = ["checkpoint", "Avg@k", f"Pass@{group}", "no signal", "held-out loss", "top-20 % entropy"]
    cells = [
        [
            row.checkpoint,
            *("-" if value is None else f"{value:.1f}" for value in (row.avg, row.passed, row.silent)),
            *("-" if value is None else f"{value:.3f}" for value in (row.held_out_nats, row.entropy_nats)),
        ]
        for row in rows
    ]
    return as_text([header, *cells])


def _folder(word: str) -> Path:
    for folder in (Path(word), Path("runs") / word):
        if RunDir(folder).stage("sft").config_file.exists():
            return folder.resolve()
    raise CurioError(f"'{word}' is no run with an sft stage", "Name a run folder or a run in runs/; see curiosft runs.")


def _start(one: Candidate) -> str:
    """The settings of an rl stage that starts from this checkpoint: a reference is looked up in `run.root`."""
    root = one.run.parent
    return shlex.join([*([] if root == Path("runs").resolve() else [f"run.root={root}"]), f"rl.init={one.reference}"])


def _resolved(run: Path, settings: Sequence[str], own_eval: dict[str, object] | None = None) -> Resolved:
    """The configuration of a run's sft stage with these settings, for the folder where the run lies now."""
    tree = from_json(RunDir(run).stage("sft").config_file).model_dump(mode="json")
    tree["run"] |= {"root": str(run.parent), "name": run.name}
    tree["eval"] |= own_eval or {}
    source = run / "config.toml"
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    return resolve(tree, parse_overrides(settings), origin="config.json", source=text)


def _sampling(run: Path, steps: Sequence[int], settings: Sequence[str]) -> Resolved:
    """An evaluation of these checkpoints that samples as rl does, on the benchmarks that sft evaluates, if any."""
    config = _resolved(run, settings).config
    drawn = {key: getattr(config.rl, key) for key in (*SAMPLING, "grader")}
    return _resolved(
        run,
        settings,
        {
            **drawn,
            "name": NAME,
            "checkpoints": [f"sft@{step}" for step in steps],
            "benchmarks": list(config.sft.eval_benchmarks or config.eval.benchmarks),
            "samples": config.rl.num_generations,
            "pass_k": None,
            "entropy_samples": 0,
        },
    )


def _rows(candidates: Sequence[Candidate], evidence: Evidence, group: int) -> tuple[str, list[Assessment]]:
    """The rows, and of which tokens the entropy is: the same for all."""
    measured = {of: [one.metrics.get(key) for one in candidates] for of, key in ENTROPIES.items()}
    of = max(measured, key=lambda name: sum(value is not None for value in measured[name]))
    scores, losses = evidence.shared(), held_out_losses(candidates, HELD_OUT)
    return of, [
        row_of(one.reference, scores.get(one.reference, {}), group, loss, entropy)
        for one, loss, entropy in zip(candidates, losses, measured[of], strict=True)
    ]


def _origins(evidence: Evidence, entropy_of: str, rows: Sequence[Assessment]) -> list[str]:
    notes = []
    if evidence.scores:
        shared = next(iter(evidence.shared().values()))
        names = ", ".join(sorted({benchmark for benchmark, _ in shared})) or "nothing"
        notes.append(f"scores: evaluation '{evidence.name}', {len(shared)} questions of {names}.")
    if any(row.entropy_nats is not None for row in rows):
        notes.append(f"entropy: of {entropy_of}.")
    return notes


def _doubts(evidence: Evidence, of_rl: tuple[object, ...]) -> list[str]:
    """Why the scores may not say what rl will meet."""
    names, sampled = ", ".join(SAMPLING), sorted(map(str, evidence.sampling))
    if len(sampled) > 1:
        return [f"note: the samples were drawn differently ({names}): {'; '.join(sampled)}."]
    if evidence.scores and evidence.sampling != {of_rl}:
        return [f"note: the samples were drawn with {names} {sampled[0]}, rl draws with {of_rl}; see --sample."]
    return []


def _missing(rows: Sequence[Assessment], words: str, group: int) -> list[str]:
    """The columns with an empty cell, and how to fill them."""
    columns = {
        f"Pass@{group} and no signal": ("passed", f"curiosft choose {words} --sample"),
        "held-out loss": ("held_out_nats", f"curiosft choose {words} --sample data.validation=ROWS"),
        "top-20 % entropy": ("entropy_nats", "train with log.every=1"),
    }
    notes = []
    for name, (column, how) in columns.items():
        without = [row.checkpoint for row in rows if getattr(row, column) is None]
        if without:
            whose = "every checkpoint" if len(without) == len(rows) else ", ".join(without)
            notes.append(f"missing: {name} of {whose}. To get it: {how}")
    return notes
