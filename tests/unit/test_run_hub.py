"""A hub that does not answer costs seconds, once, and its libraries are told; a user's own setting stays."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from curiosft_cli.run import hub
from curiosft_cli.run.errors import MISSING, hub_refusal


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (hub.OFFLINE, hub.REASON, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards, whatever a test sets
        monkeypatch.delenv(name)
    hub._unreachable.cache_clear()
    yield
    hub._unreachable.cache_clear()


def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.use_hub() is None
    assert hub.OFFLINE not in os.environ


def test_a_hub_that_is_down_is_found_out_once_and_children_know_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    reason = hub.use_hub()
    assert time.monotonic() - started < 10
    assert reason is not None and "127.0.0.1 cannot be reached" in reason
    assert os.environ[hub.OFFLINE] == "1" and os.environ[hub.REASON] == reason
    hub._unreachable.cache_clear()  # as in a child
    assert hub.use_hub() == reason
    refusal = hub_refusal(OSError("x"), "someone/model")
    assert refusal is not None and refusal.exit_code == MISSING
    assert reason in str(refusal) and hub.OFFLINE in str(refusal)


def test_a_users_own_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.OFFLINE, "1")
    assert hub.use_hub() is None and hub_refusal(OSError("x"), "someone/model") is None
    assert hub.REASON not in os.environ


def test_a_local_folder_is_never_refused_by_the_hub(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert hub_refusal(OSError("x"), str(tmp_path)) is None
