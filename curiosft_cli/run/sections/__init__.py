"""The sections of the configuration: each key with its unit, its default, and the source of the default."""

from __future__ import annotations

from curiosft_cli.run.sections.base import Section
from curiosft_cli.run.sections.check import CheckSettings
from curiosft_cli.run.sections.evaluate import Eval, OwnBenchmark
from curiosft_cli.run.sections.general import Data, Launch, Log, Model, Run
from curiosft_cli.run.sections.rephrase import Rephrase
from curiosft_cli.run.sections.rl import Rl
from curiosft_cli.run.sections.sft import Sft, TeacherSettings
from curiosft_cli.run.sections.training import Lora, Training

__all__ = [
    "CheckSettings",
    "Config",
    "Data",
    "Eval",
    "Launch",
    "Log",
    "Lora",
    "Model",
    "OwnBenchmark",
    "Rephrase",
    "Rl",
    "Run",
    "Section",
    "Sft",
    "TeacherSettings",
    "Training",
]


class Config(Section):
    """The whole configuration: one section per stage, and what all stages share."""

    run: Run = Run()
    model: Model = Model()
    data: Data = Data()
    rephrase: Rephrase = Rephrase()
    sft: Sft = Sft()
    rl: Rl = Rl()
    eval: Eval = Eval()
    launch: Launch = Launch()
    log: Log = Log()
    check: CheckSettings = CheckSettings()
