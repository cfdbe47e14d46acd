"""The numbers of the paper's Tables 2 and 3, and which run one may set beside which row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.resume_policy import refused_changes
from curiosft_cli.run.sections import Config

ENTROPY = "entropy"
COLUMNS = (
    *("aime25", "aime24", "amc", "math500", "minerva", "olympiadbench", "ID average"),
    *("gpqa_diamond", "mmlu_pro", "arc_challenge", "OOD average", ENTROPY),
)


class PaperRow(NamedTuple):
    """One row: its name, the checkpoint of a run that it is about, and percentages and nats by column."""

    name: str
    checkpoint: str
    numbers: Mapping[str, float]


def _row(name: str, checkpoint: str, *numbers: float) -> PaperRow:
    return PaperRow(name, checkpoint, dict(zip(COLUMNS, numbers, strict=False)))


# Recipe -> row. Table 3 gives no entropies.
ROWS: Mapping[str, PaperRow] = {
    "qwen2.5-math-7b": _row("base", "base", 4.6, 8.3, 35.5, 50.1, 12.1, 16.5, 21.2, 26.2, 32.4, 63.2, 40.6, 0.15),
    "sft": _row("SFT", "sft", 22.9, 26.7, 59.6, 85.8, 45.5, 50.4, 48.5, 27.7, 47.5, 78.8, 51.3, 0.31),
    "sft-entropy": _row("+ entropy", "sft", 23.3, 25.4, 60.3, 86.1, 44.2, 49.2, 48.1, 28.0, 45.9, 77.2, 50.4, 0.36),
    "sft-kl": _row("+ KL", "sft", 21.6, 24.6, 58.2, 83.9, 45.2, 46.3, 46.6, 27.4, 47.8, 78.0, 51.1, 0.30),
    "gem": _row("GEM", "sft", 24.6, 26.7, 60.2, 85.7, 47.7, 50.9, 49.3, 30.6, 49.0, 81.4, 53.7, 0.66),
    "dft": _row("DFT", "sft", 23.3, 25.0, 59.3, 86.6, 46.4, 49.9, 48.4, 31.1, 48.8, 79.0, 53.0, 0.29),
    "psft": _row("PSFT", "sft", 25.0, 28.8, 60.4, 86.9, 48.3, 52.6, 50.3, 29.9, 47.8, 76.7, 51.5, 0.32),
    "curio": _row("CurioSFT", "sft", 26.3, 29.6, 59.9, 87.0, 49.8, 53.2, 51.0, 31.7, 49.5, 81.3, 54.2, 0.43),
    "curio-fixed-tau": _row(
        "fixed temperature", "sft", 24.6, 26.7, 59.0, 86.4, 48.8, 53.1, 49.8, 29.5, 47.3, 79.8, 52.2, 0.45
    ),
    "curio-self": _row(
        "no separate teacher", "sft", 25.0, 28.8, 58.2, 85.4, 49.3, 52.8, 49.9, 30.8, 48.2, 80.2, 53.0, 0.39
    ),
    "grpo": _row("GRPO", "rl", 18.8, 20.8, 62.8, 84.7, 46.7, 50.0, 47.3, 40.3, 50.1, 84.1, 58.2),
    "luffy": _row("LUFFY", "rl", 29.4, 23.1, 65.6, 87.6, 49.5, 57.2, 52.1, 39.9, 53.0, 80.5, 57.8),
    "prefix-rft": _row("Prefix-RFT", "rl", 26.4, 31.8, 68.2, 88.4, 50.9, 55.7, 53.6, 39.1, 52.1, 84.0, 58.4),
    "rl-plus": _row("RL-PLUS", "rl", 25.9, 33.4, 68.1, 90.2, 52.3, 58.8, 54.8, 40.4, 54.7, 82.3, 59.1),
    "sft-rl": _row("SFT + RL", "rl", 24.6, 32.1, 68.1, 88.2, 51.9, 57.1, 53.7, 41.1, 53.3, 83.5, 59.3),
    "gem-rl": _row("GEM + RL", "rl", 27.5, 34.6, 71.1, 90.8, 52.1, 61.3, 56.2, 40.3, 54.1, 83.7, 59.4),
    "dft-rl": _row("DFT + RL", "rl", 24.2, 31.3, 69.8, 91.3, 50.5, 59.0, 54.4, 40.4, 54.0, 84.9, 59.8),
    "psft-rl": _row("PSFT + RL", "rl", 26.7, 36.7, 71.5, 91.2, 52.0, 62.7, 56.8, 42.8, 55.4, 85.1, 61.1),
    "curio-rl": _row("CurioSFT + RL", "rl", 30.4, 39.2, 72.7, 91.7, 54.9, 63.2, 58.7, 43.2, 56.0, 85.9, 61.7),
}
# What each checkpoint depends on.
STAGES = {"base": (), "sft": ("sft",), "rl": ("sft", "rl")}
HARMLESS = ("run.", "data.validation")


def matching_row(config: Mapping[str, Any], checkpoint: str) -> PaperRow | None:
    """The paper's row for this checkpoint, if the run has the settings of that row's recipe. The seed may differ."""
    try:
        mine = Config.model_validate(config)
    except ValueError:  # of another version
        return None
    for recipe, row in ROWS.items():
        if row.checkpoint == checkpoint and _same(recipe, row, mine):
            return row
    return None


def _same(recipe: str, row: PaperRow, mine: Config) -> bool:
    try:
        theirs = load(recipe).config
    except CurioError:
        return False
    if theirs.model.path != mine.model.path:
        return False
    trained = [stage for stage in STAGES[row.checkpoint] if stage in theirs.run.stages]
    changes = [change for stage in trained for change in refused_changes(stage, theirs, mine, complete=True)]
    return all(change.startswith(HARMLESS) for change in changes)
