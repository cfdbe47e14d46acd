"""How labelled rewrites are judged, by the rules alone and with a verifier of a given skill; JSON lines.

    python bench/rephrase_judge.py [--pairs tests/rewrite_pairs.jsonl] [--posts FILE.jsonl ...]

rules     of good and spoiled rewrites: how many the rules accept, refuse and leave undecided
verifier  a scripted verifier that is right with probability p judges what is undecided: good ones refused and spoiled
          ones accepted in the end, expected over its errors
posts     questions of these files (`question`), each behind a label, and with planted faults: the rules alone
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curiosft_cli.run.files import read_jsonl
from curiosft_cli.stages.rephrase.calibrate import NONE, plant
from curiosft_cli.stages.rephrase.judge.rules import judge_by_rules, tidy

LABELS = ("Problem 3. (10 points) ", "26th IMO 1985 shortlist Problem 26 ", "(20 points) ", "12. ", "Exercise 4.2: ")
SKILLS = (0.9, 0.95, 0.99)


def judged(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Rewrites by label and the rules' outcome."""
    return Counter((row["label"], judge_by_rules(row["post"], tidy(row["rewrite"])).outcome) for row in rows)


def shares(counts: Counter[tuple[str, str]]) -> dict[str, Any]:
    """The counts of good and spoiled rewrites, and the two errors."""
    total = {label: sum(n for (of, _), n in counts.items() if of == label) for label in ("good", "spoiled")}
    undecided = counts["good", "undecided"], counts["spoiled", "undecided"]
    return {
        **total,
        "good_refused": counts["good", "refused"],
        "spoiled_accepted": counts["spoiled", "accepted"],
        "good_undecided": round(undecided[0] / max(total["good"], 1), 3),
        "all_undecided": round(sum(undecided) / max(sum(total.values()), 1), 3),
    }


def with_verifier(counts: Counter[tuple[str, str]], skill: float) -> dict[str, float]:
    """Expected shares of good rewrites refused and spoiled ones accepted in the end."""
    errors = {}
    for label, wrong in (("good", "refused"), ("spoiled", "accepted")):
        total = sum(n for (of, _), n in counts.items() if of == label)
        errors[f"{label}_{wrong}"] = round((counts[label, wrong] + (1 - skill) * counts[label, "undecided"]) / total, 4)
    return errors


def planted(files: Iterable[Path], draw: random.Random, longest: int = 9_000) -> Iterable[dict[str, Any]]:
    """Questions of these files behind a label: as they are, and with each fault that they have a place for."""
    for file in files:
        for row in read_jsonl(file):
            label = draw.choice(LABELS)
            for pair in plant(row["question"], draw) if len(row["question"]) < longest else ():
                kind = "good" if pair.id == NONE else "spoiled"
                yield {"label": kind, "post": label + pair.post, "rewrite": pair.rewrite}


def main() -> None:
    """Judge, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=Path(__file__).parents[1] / "tests" / "rewrite_pairs.jsonl")
    parser.add_argument("--posts", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    pairs = list(read_jsonl(options.pairs))
    for half in ("mend", "report"):
        for kind in ("labelled", "noisy"):
            counts = judged(row for row in pairs if (row["half"], row["kind"]) == (half, kind))
            print(json.dumps({"figure": "rules", "half": half, "posts": kind, **shares(counts)}))
    counts = judged(row for row in pairs if row["half"] == "report")
    for skill in SKILLS:
        print(json.dumps({"figure": "verifier", "half": "report", "right": skill, **with_verifier(counts, skill)}))
    if options.posts:
        started = time.perf_counter()
        counts = judged(planted(options.posts, random.Random(0)))
        ms = round(1e3 * (time.perf_counter() - started) / counts.total(), 2)
        print(json.dumps({"figure": "posts", **shares(counts), "ms_a_pair": ms}))


if __name__ == "__main__":
    main()
