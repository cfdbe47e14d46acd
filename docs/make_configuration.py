"""Write docs/configuration.md from the field docstrings: `python docs/make_configuration.py`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from curiosft_cli.run.sections import Config
from curiosft_cli.run.sections.base import REOPENS_EVALUATION, RESUME_FREE

HEADER = """# Configuration

Made from the code by `docs/make_configuration.py`; a test keeps it true. A TOML file holds only what differs from
these defaults; on the command line the same keys are written `section.key=value`. `none` switches a value off.
`curiosft config show CONFIG` prints every value of a configuration and where it comes from. A key with † may change
when a stage continues. A stage with results refuses another value of any other key of `[model]`, `[data]` and its own
section, and of `run.seed`.

`extends = "curio"` at the top of a file takes over a recipe, `extends = "lab.toml"` another file beside it; the file
then holds what differs. The order is: default, `run.fidelity`, what is extended, the file, the command line; later ones
win.
A file that names another `model.path` does not take over the context settings of the former model.

Numbers are finite and below 2^63, a name is in a list once, and a key is on the command line once. CONFIG is a regular
file. An address is `http(s)://HOST[:PORT][/PATH]` and nothing else. No value may hold a secret of the environment (a
variable that ends in KEY, TOKEN, SECRET or PASSWORD). Anything else is refused with one line and exit code 2, before
anything is written.
"""


def render() -> str:
    """The whole page."""
    sections = [_section(name, field.annotation) for name, field in Config.model_fields.items()]
    return HEADER + "\n" + "\n".join(sections)


def _section(name: str, section: type[BaseModel] | None) -> str:
    assert section is not None
    rows = [f"## {name}", "", "| key | default | meaning |", "|---|---|---|", *_rows(name, section)]
    return "\n".join(rows) + "\n"


def _rows(prefix: str, section: type[BaseModel], free: bool = False) -> list[str]:
    """One row a key: first the keys that the section declares itself, then the inherited ones."""
    rows: list[str] = []
    for name in dict.fromkeys((*section.__annotations__, *section.model_fields)):
        field = section.model_fields[name]
        marked = free or RESUME_FREE in field.metadata or REOPENS_EVALUATION in field.metadata
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            rows += _rows(f"{prefix}.{name}", type(default), marked)
            continue
        shown = "none" if default is None else json.dumps(default, ensure_ascii=False)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{prefix}.{name}`{' †' * marked} | `{shown}` | {meaning} |")
    return rows


if __name__ == "__main__":
    (Path(__file__).parent / "configuration.md").write_text(render(), encoding="utf-8")
