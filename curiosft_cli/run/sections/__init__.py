"""The sections of the configuration: what may be set, its unit, its default, and where the default comes from."""

from __future__ import annotations

from curiosft_cli.run.sections.base import Section
from curiosft_cli.run.sections.check import Check
from curiosft_cli.run.sections.evaluate import Eval
from curiosft_cli.run.sections.general import Data, Launch, Log, Model, Run
from curiosft_cli.run.sections.rephrase import Rephrase
from curiosft_cli.run.sections.rl import Rl
from curiosft_cli.run.sections.sft import Lora, Sft, Teacher

__all__ = [
    "Check",
    "Config",
    "Data",
    "Eval",
    "Launch",
    "Log",
    "Lora",
    "Model",
    "Rephrase",
    "Rl",
    "Run",
    "Section",
    "Sft",
    "Teacher",
]


class Config(Section):
    """The whole configuration, one section per room."""

    run: Run = Run()
    model: Model = Model()
    data: Data = Data()
    rephrase: Rephrase = Rephrase()
    sft: Sft = Sft()
    rl: Rl = Rl()
    eval: Eval = Eval()
    launch: Launch = Launch()
    log: Log = Log()
    check: Check = Check()
