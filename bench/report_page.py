"""The size of a large report, and what it costs a browser to open; one JSON line.

    PYTHONPATH=tests python bench/report_page.py [--runs 4] [--steps 500] [--responses 10000]

The responses are words of the docs with numbers between them. `open_cpu_s` is the time of the page's thread until it is
loaded and the first chart is drawn; `open_s` is the same by the clock. Needs Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

from browser import opened
from report_runs import write_evaluation, write_run, write_tokens

from curiosft_cli.tools.report.write import write_report

WORDS = [word for page in sorted(Path("docs").glob("*.md")) for word in page.read_text(encoding="utf-8").split()]
SAMPLES = 8
DRAWN = "document.readyState === 'complete' && document.querySelector('.chart .main-svg') !== null"


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("runs", 4), ("steps", 500), ("responses", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder, chance = Path(temporary), random.Random(0)

        def text(length: int) -> str:
            return " ".join(chance.choice((chance.choice(WORDS), str(chance.randrange(1000)))) for _ in range(length))

        runs = []
        for number in range(asked.runs):
            runs.append(str(write_run(folder / f"run-{number}", steps=asked.steps, seed=number)))
            questions = asked.responses // asked.runs // SAMPLES
            texts = [[text(chance.choice((100, 400, 1500))) for _ in range(SAMPLES)] for _ in range(questions)]
            right = [[chance.randrange(2) for _ in some] for some in texts]
            write_evaluation(Path(runs[-1]), "sft", texts, right)
            for step in range(50, asked.steps + 1, 50):
                write_tokens(Path(runs[-1]), step, [text(900).split() for _ in range(4)], seed=step)
        started = time.monotonic()
        write_report(runs, folder / "page.html")
        made_s = time.monotonic() - started
        numbers = asyncio.run(open_page(folder / "page.html", folder))
        mib = (folder / "page.html").stat().st_size / 2**20
        print(json.dumps({"mib": round(mib, 2), "made_s": round(made_s, 1), **numbers}))


async def open_page(file: Path, folder: Path) -> dict[str, float]:
    """Seconds until the page is loaded and its first chart is drawn."""
    blank = folder / "blank.html"
    blank.write_text("<title>blank</title>")
    async with opened(blank, folder) as page:
        await page.command("Performance.enable", timeDomain="threadTicks")
        started = time.monotonic()
        await page.command("Page.navigate", url=file.as_uri())
        await page.until(DRAWN)
        seconds = time.monotonic() - started
        metrics = (await page.command("Performance.getMetrics"))["metrics"]
        cpu = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
        return {"open_cpu_s": round(cpu, 2), "open_s": round(seconds, 2)}


if __name__ == "__main__":
    main()
