"""Write docs/configuration.md from the field docstrings: `python docs/make_configuration.py`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from curiosft_cli.run.sections import Config

HEADER = """# Configuration

Made from the code by `docs/make_configuration.py`; a test keeps it true. A TOML file holds only what differs from
these defaults; on the command line the same keys are written `section.key=value`. `none` switches a value off.
`curiosft config show CONFIG` prints every value of a configuration and where it comes from.
"""


def render() -> str:
    """The whole page."""
    sections = [_section(name, field.annotation) for name, field in Config.model_fields.items()]
    return HEADER + "\n" + "\n".join(sections)


def _section(name: str, section: type[BaseModel] | None) -> str:
    assert section is not None
    rows = [f"## {name}", "", "| key | default | meaning |", "|---|---|---|", *_rows(name, section)]
    return "\n".join(rows) + "\n"


def _rows(prefix: str, section: type[BaseModel]) -> list[str]:
    rows: list[str] = []
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            rows += _rows(f"{prefix}.{name}", type(default))
            continue
        shown = "none" if default is None else json.dumps(default, ensure_ascii=False)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{prefix}.{name}` | `{shown}` | {meaning} |")
    return rows


if __name__ == "__main__":
    (Path(__file__).parent / "configuration.md").write_text(render(), encoding="utf-8")
