"""Docs that are made from the code are up to date, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy
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
