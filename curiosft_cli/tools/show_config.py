"""What `curiosft config` prints: values with their origins, and the differences between the sources."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from curiosft_cli.run.config import flatten
from curiosft_cli.run.departures import TITLES, departures, explained
from curiosft_cli.run.differences import DIFFERENCES, as_table
from curiosft_cli.run.text import one_line

if TYPE_CHECKING:
    from curiosft_cli.run.config import Resolved
    from curiosft_cli.run.sections import Config


def values_and_origins(resolved: Resolved, *, as_json: bool, widest: int = 60) -> str:
    """Every key with its value and origin: a table, or one JSON object."""
    tree = resolved.config.model_dump(mode="json")
    if as_json:
        return json.dumps({"config": tree, "origins": dict(resolved.origins)}, ensure_ascii=False)
    rows = [(key, json.dumps(value, ensure_ascii=False), resolved.origins[key]) for key, value in flatten(tree)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        one_line(f"{key:{widths[0]}}  {value:{min(widths[1], widest)}}  {origin}") for key, value, origin in rows
    )


def differences(config: Config | None, *, as_json: bool) -> str:
    """Where paper, authors' code and our defaults differ; of `config`, where it departs from paper and code."""
    if config is None:
        return json.dumps([asdict(row) for row in DIFFERENCES], ensure_ascii=False) if as_json else as_table()
    if not as_json:
        return explained(config)
    found = {column: [asdict(row) for row in departures(config, column)] for column in TITLES}
    return json.dumps(found, ensure_ascii=False)
