"""The completions endpoint: what is sent, what is tried again, and that nobody waits for what is still on its way."""

from __future__ import annotations

import time

import pytest
from scripted import Reply, ScriptedServer

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.completions import CompletionsSampler
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.processes import free_port

SAMPLING = Sampling(0.6, 0.95, 9, (2, 3))


def engine(url: str, max_attempts: int = 6) -> CompletionsSampler:
    endpoint = Endpoint(url, "m", "NO_KEY", 4, max_attempts=max_attempts, backoff_s=0.01, longest_backoff_s=0.02)
    return CompletionsSampler(endpoint, lambda text: list(text.encode()))


def test_tokens_go_in_and_come_back() -> None:
    raw = '{"choices": [{"text": "x", "token_ids": [7, 2], "finish_reason": "length"}]}'
    replies = {"[1, 5]": Reply("hi"), "[1, 6]": Reply(raw=("application/json", raw))}
    with ScriptedServer(lambda _, prompt: replies[prompt]) as server:
        got = dict(engine(server.url).stream([[1, 5], [1, 6]], SAMPLING, [11, 12]))
    assert got == {0: Completion((104, 105), (), "stop"), 1: Completion((7, 2), (), "length")}
    assert sorted((body["prompt"], body["seed"]) for body in server.bodies) == [([1, 5], 11), ([1, 6], 12)]
    (sent,) = {
        (body["temperature"], body["top_p"], body["max_tokens"], *body["stop_token_ids"]) for body in server.bodies
    }
    assert sent == (0.6, 0.95, 9, 2, 3)


def test_faults_of_the_moment_are_tried_again() -> None:
    faults = {
        0: Reply("busy", 429),
        1: Reply("down", 503),
        2: Reply(drop=True),
        3: Reply(raw=("text/plain", "no JSON")),
    }
    with ScriptedServer(lambda number, _: faults.get(number, Reply("ok"))) as server:
        got = dict(engine(server.url).stream([[1]] * 4, SAMPLING))
    assert len(got) == 4 and len(server.bodies) == 8


def test_a_fault_that_stays_ends_the_stream() -> None:
    with (
        ScriptedServer(lambda *_: Reply("down", 500)) as server,
        pytest.raises(CurioError, match=r"keeps failing \(500: .*down") as raised,
    ):
        list(engine(server.url, max_attempts=2).stream([[1]], SAMPLING))
    assert raised.value.exit_code == MISSING and len(server.bodies) == 2


def test_a_refusal_is_raised_while_others_are_still_on_their_way() -> None:
    """An interrupt would wait for them just as long."""

    def script(_: int, prompt: str) -> Reply:
        return Reply("no such model", 404, delay_s=0.3) if prompt == "[1]" else Reply(delay_s=60)

    with ScriptedServer(script) as server:
        with pytest.raises(CurioError, match=r"refuses \(404: .*no such model"):
            list(engine(server.url).stream([[1], [2], [3]], SAMPLING))
        assert server.open >= 1


def test_an_address_without_a_server_is_said_at_once() -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m", "NO_KEY", backoff_s=60.0)
    with pytest.raises(CurioError, match="does not answer") as raised:
        list(CompletionsSampler(endpoint, lambda text: [len(text)]).stream([[1]], SAMPLING))
    assert raised.value.exit_code == MISSING


def test_leaving_the_stream_ends_its_requests() -> None:
    with ScriptedServer(lambda number, _: Reply("ok", delay_s=0.0 if number == 0 else 0.3)) as server:
        stream = iter(engine(server.url).stream([[1]] * 40, SAMPLING))
        next(stream)
        del stream
        time.sleep(0.6)
        assert len(server.bodies) < 10


def test_a_private_server_needs_no_key_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda *_: Reply("through the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        private = Endpoint("http://server.invalid/v1", "m", "NO_KEY", private=True)
        with pytest.raises(CurioError, match="does not answer"):
            list(CompletionsSampler(private, lambda text: [len(text)]).stream([[1]], SAMPLING))
        assert proxy.bodies == []
