"""Speed and memory of `curiosft data check` on made-up rows of the size of the paper's training set.

    python bench/data_check.py MODEL BENCHMARK_FOLDER [--rows 46000] [--folder DIR] [--depth quick|full]

Writes a parquet file in LUFFY's layout once (responses of about `--words` words), runs the real command in a child
and prints one JSON line: seconds, CPU seconds, and the peak memory that the command reports.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from curiosft_cli.data.arithmetic import generate

WORDS = """
    we so then now let us check first the sum of both sides and since this is an even number it follows that wait
    therefore hence substitute factor expand compute term equation square root value positive integer because
"""


def gold(rng: random.Random) -> str:
    """A gold in the proportions of competition answers; the last two kinds are beyond the small grammar."""
    a, b, c = rng.randint(2, 9999), rng.randint(2, 999), rng.randint(2, 99)
    kinds = [
        str(a), rf"\frac{{{a}}}{{{b}}}", rf"{c}\sqrt{{{b}}}", f"({c},{b})", f"{c}x^2+{b}", rf"{b}\pi",
        rf"({c},{b}]\cup\{{{a}\}}", rf"x \ge {c}+\lfloor {b}/7\rfloor",
    ]  # fmt: skip
    return rng.choices(kinds, weights=[60, 14, 7, 6, 4, 3, 3, 3])[0]


def thought(rng: random.Random, words: int) -> str:
    """Prose and formulas of about this many words."""
    parts, vocabulary = [], WORDS.split()
    while len(parts) < words // 12:
        x, y = rng.randint(1, 999), rng.randint(1, 999)
        parts.append(f"{' '.join(rng.choices(vocabulary, k=9))} ${x}x^2 + \\frac{{{y}}}{{{x}}} = {x * y}$.")
    return "\n".join(parts)


def write_rows(path: Path, rows: int, words: int, batch_rows: int = 1000) -> None:
    """LUFFY's columns."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = random.Random(0)
    writer = None
    batch: list[dict[str, object]] = []
    for number, problem in enumerate(generate("train", rows, 0)):
        answer = gold(rng)
        question = f"{problem.question} Moreover, let $x_{{{number}}} = \\frac{{{rng.randint(1, 10**6)}}}{{7}}$."
        response = (
            f"<think>\n{thought(rng, rng.randint(words // 4, words * 7 // 4))}\n</think>\n\nSo $\\boxed{{{answer}}}$."
        )
        batch.append({
            "data_source": rng.choice(["olympiads", "aops_forum", "cn_contest"]),
            "prompt": [{"content": "Be brief.", "role": "system"}, {"content": question, "role": "user"}],
            "target": [{"content": response, "role": "assistant"}],
            "ability": "math",
            "reward_model": {"ground_truth": answer, "style": "rule"},
            "extra_info": {"index": number, "split": "train"},
        })  # fmt: skip
        if len(batch) == batch_rows or number == rows - 1:
            table = pa.Table.from_pylist(batch)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            batch = []
    assert writer is not None
    writer.close()


def main() -> None:
    """Make the rows, run the command, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("benchmarks", type=Path, help="folder with one NAME.jsonl for each benchmark")
    parser.add_argument("--rows", type=int, default=46_000)
    parser.add_argument("--words", type=int, default=1600)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--depth", choices=["quick", "full"], default="full")
    options = parser.parse_args()
    path = options.folder / f"check-{options.rows}-{options.words}.parquet"
    if not path.exists():
        write_rows(path, options.rows, options.words)
    files = [f"eval.data.{file.stem}={file}" for file in sorted(options.benchmarks.glob("*.jsonl"))]
    names = json.dumps([file.stem for file in sorted(options.benchmarks.glob("*.jsonl"))])
    command = [
        sys.executable, "-m", "curiosft_cli.cli", "data", "check", str(path), f"model.path={options.model}",
        f"check.depth={options.depth}", f"check.benchmarks={names}", *files, "--json",
    ]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    print(json.dumps({
        "depth": options.depth, "rows": report["rows"], "mb": round(path.stat().st_size / 1e6),
        "exit": done.returncode, "seconds": round(seconds, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mib": report["peak_mib"], "tokens": report["tokens"],
        "findings": {name: len(found["rows"]) for name, found in report["problems"].items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
