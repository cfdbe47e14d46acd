"""`curiosft review RUN`: cleaned questions beside their originals, as one HTML page and as samples in the terminal."""

from __future__ import annotations

import difflib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from curiosft_cli.data.sources import read_source
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import PARTIAL_SUFFIX, read_jsonl
from curiosft_cli.run.text import one_line, plain, show
from curiosft_cli.stages.rephrase.judge.diff import edits
from curiosft_cli.stages.rephrase.judge.rules import is_too_long

DATA_MARK = "{{DATA}}"
RECORDED = ("verdict", "reason", "decided_by", "differences", "flags")
FIELDS = ("id", *RECORDED, "original", "after", "changed")
WORD = re.compile(r"\s+|[A-Za-z0-9]+|.", re.DOTALL)


def review(run: str, *, samples: int = 10, seed: int = 0) -> None:
    """Write `rephrase/review.html` and print some rows.

    Raises:
        CurioError: there is no such run, or it has no cleaned questions.
    """
    folder = stage_folder(run)
    chosen, total, verdicts = write_page(folder, folder / "review.html", samples, random.Random(seed))
    for row in chosen:
        sys.stdout.write(as_lines(row, colour=sys.stdout.isatty()) + "\n\n")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    show(f"{total} questions: {counts}\n{folder / 'review.html'}")


def stage_folder(run: str) -> Path:
    """The rephrase folder of a run's folder or name.

    Raises:
        CurioError: there is none, or it is not complete.
    """
    for folder in (Path(run), Path(run) / "rephrase", Path("runs") / run / "rephrase"):
        if (folder / "rejected.jsonl").exists():
            return folder
    raise CurioError(
        f"'{run}' has no cleaned questions (rephrase/rejected.jsonl)", "Give the folder of a run whose rephrase ended."
    )


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every question: its verdict, the original, and what the model made of it, used or not.

    Refused answers come first, then what was accepted.
    """
    for row in read_jsonl(folder / "rejected.jsonl"):
        yield {
            "id": row["id"],
            **{name: row[name] for name in RECORDED},
            **_texts(row["original_question"], row["answer"]),
        }
    for row, problem in read_source("rephrase", run_dir=folder.parent):
        record = row["rephrase"]
        if record["verdict"] == "accepted":
            yield {
                "id": problem.id,
                **{name: record[name] for name in RECORDED},
                **_texts(row["original_question"], problem.question),
            }


def _texts(original: str, after: str) -> dict[str, Any]:
    """Both texts, and the spans in which they differ with what these hold."""
    found = [] if is_too_long(original) or is_too_long(after) else edits(original, after)
    return {"original": original, "after": after, "changed": list(map(str, found))}


def write_page(
    folder: Path, target: Path, samples: int, draw: random.Random
) -> tuple[list[dict[str, Any]], int, Counter[str]]:
    """Stream all rows into the page; returns a uniform sample, the number of rows and the verdicts."""
    head, _, tail = (
        (resources.files("curiosft_cli.stages.rephrase") / "review.html").read_text("utf-8").partition(DATA_MARK)
    )
    chosen: list[dict[str, Any]] = []
    verdicts: Counter[str] = Counter()
    partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
    with partial.open("w", encoding="utf-8") as page:
        page.write(head)
        for number, row in enumerate(read_rows(folder)):
            page.write((",\n" if number else "") + embedded([row[name] for name in FIELDS]))
            verdicts[row["verdict"]] += 1
            if len(chosen) < samples:
                chosen.append(row)
            elif (place := draw.randrange(number + 1)) < samples:
                chosen[place] = row
        page.write(tail)
    partial.replace(target)
    return chosen, verdicts.total(), verdicts


def embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in, whatever a post holds."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def as_lines(row: dict[str, Any], *, colour: bool) -> str:
    """One row for the terminal: its verdict, then what went and what came."""
    flags = f" [{', '.join(row['flags'])}]" if row["flags"] else ""
    head = one_line(f"{row['id']}: {row['verdict']} ({row['reason']}; {row['decided_by']}){flags}")
    notes = [f"  {one_line(note)}" for note in (*row["differences"], *row["changed"])]
    return "\n".join([head, word_diff(row["original"], row["after"], colour), *dict.fromkeys(notes)])


def word_diff(before: str, after: str, colour: bool) -> str:
    """Both texts in one: `[-gone-]` and `{+new+}`, or red and green; control characters are shown, not obeyed."""
    gone, new = ("\x1b[31m{}\x1b[0m", "\x1b[32m{}\x1b[0m") if colour else ("[-{}-]", "{{+{}+}}")
    a, b = WORD.findall(plain(before)), WORD.findall(plain(after))
    parts = []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append("".join(a[a0:a1]))
            continue
        parts += [gone.format("".join(a[a0:a1]))] if a1 > a0 else []
        parts += [new.format("".join(b[b0:b1]))] if b1 > b0 else []
    return "".join(parts)
