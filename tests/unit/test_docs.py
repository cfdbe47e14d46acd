"""Docs that are made from the code are up to date, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]


def test_the_configuration_page_is_what_the_code_says() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))["render"]
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == render()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_relative_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_config_section_is_explained() -> None:
    from curiosft_cli.run.sections import Config

    for name, field in Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert isinstance(default, BaseModel)
        for key, entry in type(default).model_fields.items():
            assert entry.description, f"{name}.{key} has no docstring"


def reproduction_commands() -> list[str]:
    """Every `curiosft STAGE CONFIG ...` of the page, from its code blocks and its tables."""
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    return re.findall(r"curiosft (?:run|rephrase|sft|rl|eval) [^`\n#]+", page)


ROWS = {
    *("qwen2.5-math-7b", "sft", "sft-entropy", "sft-entropy-top20", "sft-kl", "gem", "dft", "psft"),
    *("curio", "curio-fixed-tau", "curio-self", "grpo", "luffy", "prefix-rft", "rl-plus", "hpt"),
    *("sft-rl", "gem-rl", "dft-rl", "psft-rl", "curio-rl", "authors"),
    *("qwen3-4b-base", "sft-rl-qwen3", "curio-rl-qwen3"),
    *("llama-3.1-8b-instruct", "sft-rl-llama", "curio-rl-llama"),
}


def test_the_page_of_commands_has_every_row_of_the_paper() -> None:
    assert {command.split()[2] for command in reproduction_commands()} == ROWS


@pytest.mark.parametrize("command", reproduction_commands())
def test_every_command_of_the_page_resolves(command: str) -> None:
    from curiosft_cli.run.config import load

    _, stage, reference, *overrides = shlex.split(command)
    config = load(reference, [word for word in overrides if not word.startswith("--")]).config
    assert stage == "run" or stage in {"rephrase", *config.run.stages}
