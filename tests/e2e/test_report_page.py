"""The report's page in a browser, on runs made by hand: hostile text, filters, keys, the map, phones; and bad input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, opened
from command import curiosft
from report_runs import write_evaluation, write_run, write_tokens

from curiosft_cli.run.files import write_json

pytestmark = pytest.mark.e2e
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"><!--",
    "{{DATA}} {{PACKED}} $& $' \\1 ]]> &lt;b&gt;",
    "a\u202eb\u0000c\ud800d\u2028e",
)
SHOWN = (*HOSTILE[:3], "a\\u202eb\\u0000c\\ud800d\\u2028e")


def use(file: Path, folder: Path, program: Callable[[Page], Awaitable[None]]) -> None:
    """Open the file and use the page; the browser must say nothing."""

    async def in_browser() -> None:
        async with opened(file, folder) as page:
            await program(page)
            assert page.messages == []

    asyncio.run(in_browser())


async def shown(page: Page, part: str) -> None:
    """Bring a section into sight, and wait for its data."""
    place = {"samples": "#list option", "curiosity-map": "#map-tokens span"}[part]
    await page.value(f"document.getElementById('{part}').scrollIntoView() || 1")
    await page.until(f"document.querySelector('{place}') !== null")


@in_a_browser
def test_what_a_model_wrote_is_text(tmp_path: Path) -> None:
    """Tags, marks of the template, replacement patterns and reordering signs; in responses, ids, labels and tokens."""
    run = write_run(tmp_path / "<b>run")
    write_evaluation(run, "<i>sft</i>", [HOSTILE], [[1, 0, 1, 0]], question=HOSTILE[0])
    write_evaluation(run, "rl", [HOSTILE], [[0, 0, 0, 0]], question=HOSTILE[0])
    write_tokens(run, 2, [[*HOSTILE, "\n", "end"]])
    done = curiosft("report", run, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr

    async def program(page: Page) -> None:
        await page.until("[...document.querySelectorAll('.chart')].every(place => place.querySelector('.main-svg'))")
        await shown(page, "samples")
        assert await page.value("document.getElementById('question').textContent") != ""
        for text in SHOWN:
            assert text in await page.value("document.querySelector('.models .text').textContent")
            await page.press("l")
        assert SHOWN[0] in await page.value("document.querySelector('#question > .text').textContent")
        await shown(page, "curiosity-map")
        tokens = await page.value("[...document.querySelectorAll('#map-tokens span')].map(token => token.textContent)")
        assert tokens == [*SHOWN, "\u21b5\n", "end"]
        assert "<b>run rl" in await page.value("document.querySelector('.legendtext').textContent")
        assert await page.value("document.querySelectorAll('main img, main b > i, main i > b').length") == 0
        assert (await page.value("document.title")).startswith("curiosft report: <b>run")

    use(tmp_path / "page.html", tmp_path, program)


@in_a_browser
def test_nothing_but_the_page_s_own_programs_runs(tmp_path: Path) -> None:
    """The policy refuses a program that is added, and a request, even from the page itself."""
    run = write_run(tmp_path / "run")
    assert curiosft("report", run, "--out", tmp_path / "page.html").returncode == 0

    async def in_browser() -> None:
        async with opened(tmp_path / "page.html", tmp_path) as page:
            await page.value(
                "{const bad = document.createElement('script'); bad.textContent = 'window.owned = 1'; document.body.append(bad)}"
            )
            await page.value("fetch('http://127.0.0.1:9/').catch(() => 0)")
            assert await page.value("window.owned === undefined")
            for refused in ("Executing inline script violates", "Connecting to"):
                assert any(refused in line and "Content Security Policy" in line for line in page.messages), (
                    page.messages
                )

    asyncio.run(in_browser())


@in_a_browser
def test_filters_search_and_keys(tmp_path: Path) -> None:
    """Two runs, three questions: q0 is solved by the first alone, q1 by both, q2 by none."""
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second", objective="sft", seed=1)
    write_evaluation(first, "sft", [["one", "two"], ["three", "four"], ["five", "six"]], [[1, 0], [1, 1], [0, 0]])
    write_evaluation(second, "sft", [["ein", "zwei"], ["drei", "vier"], ["acht", "neun"]], [[0, 0], [1, 0], [0, 0]])
    assert curiosft("report", first, second, "--out", tmp_path / "page.html").returncode == 0

    async def program(page: Page) -> None:
        await shown(page, "samples")

        async def ids(**chosen: str) -> list[str]:
            for name, value in chosen.items():
                await page.value(
                    f"{{const field = document.getElementById({json.dumps(name)}); field.value = {json.dumps(value)}; field.dispatchEvent(new Event('input'))}}"
                )
            return await page.value(
                "[...document.querySelectorAll('#list option')].map(row => row.textContent.split(/ +/)[2])"
            )

        assert await ids() == ["q0", "q1", "q2"]
        assert await ids(solved="one") == ["q0"]
        assert await ids(solved="only 0") == ["q0"] and await ids(solved="only 1") == []
        assert await ids(solved="none") == ["q2"]
        assert await ids(solved="", reason="correct") == ["q0", "q1"]
        assert await ids(reason="", search="DREI") == ["q1"]
        assert await page.value("document.getElementById('count').textContent") == "1 of 3 questions"
        assert await ids(search="") == ["q0", "q1", "q2"]

        responses = "[...document.querySelectorAll('.models .text')].map(text => text.textContent)"
        assert await page.value(responses) == ["one", "ein"]
        await page.press("l")
        assert await page.value(responses) == ["two", "zwei"]
        await page.press("j", "j", "j")
        assert await page.value(responses) == ["five", "acht"]
        await page.press("k")
        assert await page.value(responses) == ["three", "drei"]
        await page.press("/", "s", "i", "x")  # typing moves nothing
        assert await page.value("document.getElementById('search').value") == "six"
        await page.press("Escape", "l")
        assert await page.value(responses) == ["six", "neun"]

    use(tmp_path / "page.html", tmp_path, program)


@in_a_browser
def test_the_curiosity_map(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for step in (2, 4):
        write_tokens(run, step, [["1", "+", "1"], ["So", " it", " is", " 2"]], seed=step)
    assert curiosft("report", run, "--out", tmp_path / "page.html").returncode == 0
    alone = curiosft("report", run, "--tokens", "1", "--out", tmp_path / "alone.html")
    assert alone.returncode == 0, alone.stderr
    wrong = curiosft("report", run, "--tokens", "17")
    assert wrong.returncode == 2 and "kept: 0, 1" in wrong.stderr

    async def program(page: Page) -> None:
        await shown(page, "curiosity-map")
        await page.value(
            "{const row = document.getElementById('map-row'); row.value = row.options[row.options.length - 1].value; row.dispatchEvent(new Event('input'))}"
        )
        colours = "[...document.querySelectorAll('#map-tokens span')].map(token => token.style.background)"
        late = await page.value(colours)
        assert len(late) == 4 and len(set(late)) > 1
        await page.press("n", "n")
        card = await page.value("document.getElementById('card').innerText")
        for word in ('" it"', "step 4", "entropy", "tau", "weight w", "student", "teacher at tau", "60.0 %", '"other"'):
            assert word in card, card
        await page.press("[")
        assert await page.value(colours) != late and "step 2" in await page.value(
            "document.getElementById('card').innerText"
        )
        await page.value(
            "{const what = document.getElementById('map-value'); what.value = 'gap'; what.dispatchEvent(new Event('input'))}"
        )
        assert await page.value(colours) != late

    use(tmp_path / "page.html", tmp_path / "a", program)

    async def only(page: Page) -> None:
        await shown(page, "curiosity-map")
        assert await page.value("[...document.querySelectorAll('#map-row option')].map(row => row.textContent)") == [
            "row 1: held-1"
        ]
        assert await page.value("document.querySelectorAll('.chart, #samples').length") == 0

    use(tmp_path / "alone.html", tmp_path / "b", only)


@in_a_browser
def test_a_phone_the_dark_and_paper(tmp_path: Path) -> None:
    """Nothing is wider than a phone, dark text is light, and a printed page is light and has every chart."""
    run = write_run(tmp_path / "run", steps=30)
    write_evaluation(run, "sft", [["a long line " * 40, "b"]], [[1, 0]])
    write_tokens(run, 2, [["word "] * 300])
    assert curiosft("report", run, "--out", tmp_path / "page.html").returncode == 0

    async def program(page: Page) -> None:
        await page.size(390, 800)
        await page.until("[...document.querySelectorAll('.chart')].every(place => place.querySelector('.main-svg'))")
        await shown(page, "samples")
        await shown(page, "curiosity-map")
        assert await page.value("document.documentElement.scrollWidth") <= 390
        ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
        colours = {}
        for media in (
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
            {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        ):
            await page.command("Emulation.setEmulatedMedia", **media)
            colours[media.get("media", "dark")] = await page.value(ink)
        assert colours == {"dark": "rgb(228, 232, 238)", "print": "rgb(0, 0, 0)"}
        await page.size(1300, 900)
        await page.command("Emulation.setEmulatedMedia", media="")
        widths = "[...document.querySelectorAll('.chart')].map(place => place.querySelector('.main-svg').clientWidth)"
        await page.value("window.dispatchEvent(new Event('beforeprint'))")
        assert set(await page.value(widths)) == {340}  # two beside each other on paper
        await page.value("window.dispatchEvent(new Event('afterprint'))")
        await page.until(f"Math.min(...{widths}) > 340")

    use(tmp_path / "page.html", tmp_path, program)


def test_a_report_is_made_from_what_can_be_read(tmp_path: Path) -> None:
    """A torn and a corrupt line, a damaged archive, an unfinished benchmark, an older config: each is named."""
    run = write_run(tmp_path / "run")
    for checkpoint in ("base", "sft"):
        write_evaluation(run, checkpoint, [["x"]], [[1]])
    metrics = run / "sft" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([lines[0], "no json\n", '{"loss": 1}\n', *lines[1:], '{"step": 99, "trai']))
    (run / "rl" / "metrics.jsonl").unlink()
    (run / "rl" / "config.json").write_text("{")
    write_json(run / "sft" / "status.json", {"state": "running"})
    write_json(run / "sft" / "config.json", {"sft": {"objective": "curio", "a_key_of_old": 1}})
    old = run / "eval/base/arithmetic/summary.json"
    old.write_text(json.dumps({"checkpoint": "base", "benchmark": "arithmetic", "questions": 1}))
    archive = run / "eval/base/arithmetic/samples.jsonl.zst"
    archive.write_bytes(archive.read_bytes()[:-8] + b"12345678")
    (run / "eval/sft/arithmetic/summary.json").unlink()
    done = curiosft("report", run, "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    for words in ("line 2 is no JSON", "a line without a step", "line 7 is incomplete", "no steps of rl", "rl/config.json",
                  "sft is not complete (running)", "cannot be unpacked", "eval/sft/arithmetic is not finished"):  # fmt: skip
        assert words in done.stdout, words
    page = (run / "report.html").read_text()
    assert "line 2 is no JSON" in page and "Loss (nats)" in page
    assert (tmp_path / "figures/figure-2.pdf").read_bytes().startswith(b"%PDF") and "no figure 5" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [("nowhere", "there is no run 'nowhere'"), ("empty", "no steps and no results")],
)
def test_a_run_that_is_not_there_is_one_line(given: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = curiosft("report", given, folder=tmp_path)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_figures_of_a_sweep(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"pivot-{pivot}", pivot=pivot) for pivot in (0.8, 1.2)]
    for run in (*runs, plain := write_run(tmp_path / "plain $x$", objective="sft")):
        write_evaluation(run, "sft", [["a b c d e", "a"]], [[1, 0]])
    done = curiosft("report", *runs, plain, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    expected = [f"figure-{number}.{kind}" for number in (1, 2, 4, 5) for kind in ("pdf", "png")]
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == expected
