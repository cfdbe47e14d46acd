"""`curiosft quickstart`: the whole pipeline on a small real model, by its shipped recipe, and what it shows.

rephrase    noisy posts, cleaned by a script in place of a model
sft         CurioSFT; and, in a run of its own, half as many steps of plain SFT on the same rows in the same order
rl, eval    GRPO from the CurioSFT checkpoint; base, sft and rl on questions that none of them has seen
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from curiosft_cli.run.config import Resolved, load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_json, read_jsonl
from curiosft_cli.run.rundir import RunDir, StageDir
from curiosft_cli.run.text import one_line, show
from curiosft_cli.tools.pipeline import run_stages
from curiosft_cli.tools.tables import as_text

RECIPE = "quickstart"
WHOLE = {"run.stages": '["rephrase", "sft", "rl", "eval"]', "data.train": '["rephrase", "arithmetic:train:512"]'}
"""What the command adds to the recipe, which trains without cleaned posts. The user's own values win."""
PLAIN = "sft"
"""The objective that is trained beside the recipe's."""
OF_ONE_OBJECTIVE = ("sft.params.", "sft.teacher.")


def quickstart(overrides: Sequence[str], *, fresh: bool = False) -> None:
    """Run or continue the quickstart and print its tables to stdout."""
    given = {setting.partition("=")[0] for setting in overrides}
    wanted = [*(f"{key}={value}" for key, value in WHOLE.items() if key not in given), *overrides]
    main = load(RECIPE, wanted)
    stages = main.config.run.stages
    plain = beside(main, wanted) if "sft" in stages and main.config.sft.objective != PLAIN else None
    seconds: dict[str, float] = {}
    for stage in stages:
        seconds |= run_stages(main, (stage,), fresh=fresh)
        if stage == "sft" and plain is not None:
            seconds["plain sft"] = run_stages(plain, ("sft",), fresh=fresh)["sft"]
    show(closing_text(main, plain, seconds))


def beside(main: Resolved, settings: Sequence[str]) -> Resolved:
    """The first half of the same sft stage with plain cross-entropy, in a run of its own, on the same rows.

    The rates are those of the main run, whose cosine is twice as long as these steps.
    """
    cleaned = str(folder(main).stage("rephrase").path / "questions.jsonl")
    train = [cleaned if source == "rephrase" else source for source in main.config.data.train]
    own = {
        "run.name": f"{main.config.run.name}-plain",
        "run.stages": '["sft"]',
        "data.train": json.dumps(train),
        "sft.objective": PLAIN,
    }
    if steps := main.config.sft.max_steps:
        own |= {"sft.max_steps": f"{-(-steps // 2)}", "sft.cosine_length": f"{2 * main.config.sft.cosine_length:g}"}
    kept = [one for one in settings if not one.startswith((*OF_ONE_OBJECTIVE, *(f"{key}=" for key in own)))]
    return load(RECIPE, [*kept, *(f"{key}={value}" for key, value in own.items())])


def folder(resolved: Resolved) -> RunDir:
    """The run's folder."""
    return RunDir(Path(resolved.config.run.root) / resolved.config.run.name)


def closing_text(main: Resolved, plain: Resolved | None, seconds: dict[str, float]) -> str:
    """The text at the end: what each stage shows, its seconds, and what to try next."""
    from curiosft_cli.tools.results_report import results_report

    config, run = main.config, folder(main)
    parts = []
    if "rephrase" in config.run.stages:
        parts.append(cleaned_posts(run.stage("rephrase"), config.rephrase.model))
    if plain is not None:
        parts.append(kept_entropy({config.sft.objective: run.stage("sft"), PLAIN: folder(plain).stage("sft")}))
    if "eval" in config.run.stages:
        parts.append(results_report(run.stage(config.eval.name)))
    spent = ", ".join(f"{name} {value:.0f} s" if value else f"{name} done before" for name, value in seconds.items())
    folders = [str(folder(one).path) for one in (main, plain) if one is not None]
    parts.append(f"time: {spent}\nrun folder: {run.path}\nreport: {written_report(folders)}\n{next_commands(run.path)}")
    return "\n" + "\n\n".join(parts)


def written_report(folders: Sequence[str]) -> str:
    """The file of `curiosft report` on these runs, or why there is none: it needs the extra `report`."""
    from curiosft_cli.tools.report.write import write_report

    try:
        return write_report(folders)[-1]
    except CurioError as error:
        return str(error)


def cleaned_posts(stage: StageDir, model: str) -> str:
    """How many posts were cleaned, and the first one before and after."""
    verdicts = read_json(stage.path / "usage.json")["verdicts"]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    lines = [f"posts cleaned by {model}: {counts}"]
    for row in read_jsonl(stage.path / "questions.jsonl"):
        if (before := row.get("original_question")) not in (None, row["question"]):
            return "\n".join([*lines, one_line(f"  before: {before}"), one_line(f"  after:  {row['question']}")])
    return lines[0]


def kept_entropy(stages: dict[str, StageDir], windows: int = 4) -> str:
    """The mean entropy of the expert's tokens in each part of the training, by objective; nothing after its end."""
    curves = {
        name: [row["train/entropy_nats"] for row in read_jsonl(stage.metrics_file)] for name, stage in stages.items()
    }
    steps = max(map(len, curves.values()))
    edges = [steps * part // windows for part in range(windows + 1)]
    spans = [(start, end) for start, end in pairwise(edges) if start < end]
    header = ["entropy in nats, steps", *(f"{start + 1}-{end}" for start, end in spans)]
    rows = [
        [
            f"sft.objective={name}",
            *(f"{fmean(curve[start:end]):.3f}" if end <= len(curve) else "" for start, end in spans),
        ]
        for name, curve in curves.items()
    ]
    return as_text([header, *rows])


def next_commands(run: Path) -> str:
    """Three commands that go on from here."""
    root = "" if run.parent == Path("runs") else f" run.root={run.parent}"
    return "\n".join(
        [
            f"next: curiosft compare {run}/eval/sft {run}/eval/rl  # is rl better, and is there evidence",
            f"      curiosft choose {run} {run}-plain --sample  # which checkpoint should rl start from",
            f"      curiosft rl quickstart{root} run.name=longer rl.init={run.name}:sft rl.steps=40  # a longer GRPO",
        ]
    )
