"""The review page in a real browser: decisions by key and button, after a reload, exported, and applied."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, opened
from command import curiosft
from scripted import ScriptedServer
from test_rephrase import CLEAN
from test_rephrase_again import command, half_spoiled, rows

from curiosft_cli.run.files import read_jsonl

HOSTILE = "<img src=x onerror=document.title='owned'> What is 3+4?"
EDIT = "document.querySelector('textarea').value = {!r}; document.querySelector('#actions button').click()"


async def decide(page: Page, exported: Path) -> None:
    """Refused rows come first: three spoiled ones, then the accepted ones."""
    assert await page.value("document.querySelector('#count').textContent") == "6 of 6"
    await page.press("a", "j", "o", "j", "e")
    await page.value(EDIT.format(HOSTILE))
    await page.press("j", "x", "j", "a", "u")
    assert await page.value("document.querySelector('#export').textContent") == "export 4 decisions"
    await page.reload()
    assert await page.value("document.querySelector('#export').textContent") == "export 4 decisions"
    assert "by hand: accepted" in await page.value("document.querySelector('#list').innerText")
    await page.value("document.querySelector('#export').click()")
    for _ in range(100):
        if exported.exists():
            break
        await asyncio.sleep(0.1)
    assert await page.value("document.title") == "Cleaned questions"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_decisions_on_the_page_are_exported_and_applied(tmp_path: Path) -> None:
    exported = tmp_path / "downloads" / "decisions.jsonl"

    async def in_browser() -> None:
        async with opened(tmp_path / "runs" / "r" / "rephrase" / "review.html", tmp_path) as page:
            await decide(page, exported)

    with ScriptedServer(half_spoiled) as server:
        curiosft(*command(server), folder=tmp_path)
        before = {row["original_question"]: row["answer"] for row in rows(tmp_path, "rejected")}
        assert curiosft("review", "r", folder=tmp_path).returncode == 0
        asyncio.run(in_browser())
        posts = list(CLEAN)[:6]
        assert [tuple(row.values()) for row in read_jsonl(exported)] == [
            (posts[1], "accepted", before[posts[1]]),
            (posts[3], "kept_original", ""),
            (posts[5], "accepted", HOSTILE),
            (posts[0], "rejected", ""),
        ]
        done = curiosft(*command(server, "--decisions", exported), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    got = {row["original_question"]: row["question"] for row in rows(tmp_path)}
    assert got == {
        **{post: CLEAN[post] for post in posts[2:5:2]},
        **{posts[1]: before[posts[1]], posts[3]: posts[3], posts[5]: HOSTILE},
    }
    assert json.loads((tmp_path / "runs/r/rephrase/usage.json").read_text())["decided_by"]["person"] == 4
