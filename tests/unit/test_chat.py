"""The chat client against a scripted endpoint: what is tried again, what stops, what concerns one question."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Reply, Script, ScriptedServer

from curiosft_cli.engine.endpoint.chat import ChatClient, ChatCompletion
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.concurrency import Gate, in_parallel
from curiosft_cli.engine.endpoint.outcomes import RequestFailed
from curiosft_cli.engine.endpoint.transport import is_loopback, proxy_for, read_key, retry_after_s
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.processes import free_port

KEY = "TEST_CHAT_KEY"
QUICK: dict[str, Any] = {"backoff_s": 0.01, "longest_backoff_s": 0.05}


def client_of(url: str, **options: Any) -> ChatClient:
    """A client that waits briefly; options are the endpoint's or the client's."""
    of_endpoint = {field.name for field in fields(Endpoint)} & options.keys()
    endpoint = Endpoint(url, "m", KEY, **QUICK, **{name: options.pop(name) for name in of_endpoint})
    return ChatClient(endpoint, **options)


def ask(url: str, *prompts: str, **options: Any) -> tuple[list[ChatCompletion | Exception], ChatClient]:
    """Ask one after the other; what was raised stands in the answer's place."""

    async def main() -> tuple[list[ChatCompletion | Exception], ChatClient]:
        got: list[ChatCompletion | Exception] = []
        async with client_of(url, **options) as client:
            for prompt in prompts:
                try:
                    got.append(await client.ask(prompt))
                except (RequestFailed, CurioError) as error:
                    got.append(error)
        return got, client

    return asyncio.run(main())


def first(reply: Reply) -> Script:
    """This reply to the first request, a good one to the others."""
    return lambda number, _: reply if number == 0 else Reply("fine")


def test_one_question_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "s3cret")
    with ScriptedServer(lambda *_: Reply("$5$")) as server:
        (answer,), client = ask(server.url, "What is $2+3$?", temperature=0.3, max_tokens=77)
    assert isinstance(answer, ChatCompletion)
    assert (answer.text, answer.truncated, answer.tries) == ("$5$", False, 1)
    assert (answer.prompt_tokens, answer.completion_tokens) == (11, 3)
    message = {"role": "user", "content": "What is $2+3$?"}
    assert server.bodies == [{"model": "m", "messages": [message], "temperature": 0.3, "max_tokens": 77}]
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert client.answered == 1
    assert not client.faults


def test_an_answer_records_what_the_endpoint_says_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "s3cret")
    body = '{"model": "m-0324", "choices": [{"message": {"content": "5"}, "finish_reason": "stop"}]}'
    with ScriptedServer(lambda *_: Reply(raw=("application/json", body))) as server:
        (answer,), _ = ask(server.url, "What is 2+3?")
    assert isinstance(answer, ChatCompletion) and answer.served_by == "m-0324"


PASSING = {
    "408": Reply("slow", 408),
    "409": Reply("conflict", 409),
    "429": Reply("too fast", 429),
    "500": Reply("oops", 500),
    "502": Reply("bad gateway", 502),
    "503": Reply("busy", 503),
    "connection": Reply(drop=True),
    "timeout": Reply(delay_s=3600),
    "empty": Reply(" \n"),
    "not JSON": Reply(raw=("application/json", "<html>")),
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_fault_is_tried_again_and_counted(kind: str) -> None:
    with ScriptedServer(first(PASSING[kind])) as server:
        (answer,), client = ask(server.url, "Q", timeout_s=1.0 if kind == "timeout" else 30)
    assert isinstance(answer, ChatCompletion)
    assert (answer.text, answer.tries) == ("fine", 2)
    assert dict(client.faults) == {kind: 1}
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "raw", [("text/html", "<html>"), ("application/json", "[]"), ("application/json", '{"choices": []}')]
)
def test_a_200_that_is_no_answer_is_tried_again(raw: tuple[str, str]) -> None:
    with ScriptedServer(first(Reply(raw=raw))) as server:
        (answer,), _ = ask(server.url, "Q")
    assert isinstance(answer, ChatCompletion)
    assert answer.tries == 2


def test_a_cut_answer_is_asked_again_with_twice_the_limit() -> None:
    with ScriptedServer(first(Reply("cut of", finish="length"))) as server:
        (answer,), client = ask(server.url, "Q", max_tokens=50)
    assert isinstance(answer, ChatCompletion)
    assert (answer.text, answer.truncated) == ("fine", False)
    assert [body["max_tokens"] for body in server.bodies] == [50, 100]
    assert client.faults["length"] == 1


def test_an_answer_that_is_cut_twice_is_truncated() -> None:
    with ScriptedServer(lambda *_: Reply("cut of", finish="length")) as server:
        (answer,), _ = ask(server.url, "Q", max_tokens=50)
    assert isinstance(answer, ChatCompletion)
    assert answer.truncated
    assert len(server.bodies) == 2


def test_a_cut_answer_that_is_too_long_already_is_not_asked_again() -> None:
    async def main(url: str) -> list[ChatCompletion]:
        async with client_of(url) as client:
            return [await client.ask("Q", longest=longest) for longest in (9, 8)]

    with ScriptedServer(lambda *_: Reply("nine char", finish="length")) as server:
        asyncio.run(main(server.url))
    assert len(server.bodies) == 2 + 1


def test_a_larger_limit_beyond_the_context_leaves_the_cut_answer() -> None:
    def script(number: int, _: str) -> Reply:
        return Reply("cut of", finish="length") if number == 0 else Reply("max_tokens is too large", 400)

    with ScriptedServer(script) as server:
        (answer,), client = ask(server.url, "Q", max_tokens=50)
    assert isinstance(answer, ChatCompletion)
    assert (answer.text, answer.truncated) == ("cut of", True)
    assert client.refused == 0


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_or_an_unknown_model_stops_at_once(status: int) -> None:
    with ScriptedServer(lambda *_: Reply("no", status)) as server:
        (error,), _ = ask(server.url, "Q")
    assert isinstance(error, CurioError)
    assert error.exit_code == 3
    assert str(status) in str(error)
    assert server.url in str(error)
    assert KEY in str(error)
    assert len(server.bodies) == 1


def test_an_empty_account_stops_at_once() -> None:
    with ScriptedServer(lambda *_: Reply("pay", 429, code="insufficient_quota")) as server:
        (error,), _ = ask(server.url, "Q")
    assert isinstance(error, CurioError)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_concerns_that_question(status: int) -> None:
    with ScriptedServer(lambda _, message: Reply("too long", status) if message == "bad" else Reply()) as server:
        got, client = ask(server.url, "bad", "good")
    assert isinstance(got[0], RequestFailed)
    assert str(got[0]) == f"{status}: too long"
    assert isinstance(got[1], ChatCompletion)
    assert len(server.bodies) == 2
    assert client.refused == 1


def test_refusals_from_the_start_stop_the_run() -> None:
    with ScriptedServer(lambda *_: Reply("no", 400)) as server:
        got, _ = ask(server.url, *["Q"] * 20)
    assert all(isinstance(error, RequestFailed) for error in got[:19])
    assert isinstance(got[19], CurioError)
    assert "refuses every question" in str(got[19])


@pytest.mark.parametrize("answered_before", [0, 5])
def test_refusals_after_an_answer_do_not_stop_the_run(answered_before: int) -> None:
    good = 0 if answered_before else 1
    with ScriptedServer(lambda number, _: Reply() if number < good else Reply("no", 400)) as server:
        got, _ = ask(server.url, *["Q"] * 30, answered=answered_before)
    assert all(isinstance(error, RequestFailed) for error in got[good:])


def test_a_question_that_always_fails_is_given_up_and_the_next_one_asked() -> None:
    with ScriptedServer(lambda _, message: Reply("oops", 500) if message == "bad" else Reply()) as server:
        got, client = ask(server.url, "bad", "good", "bad", "good", "bad", "good", max_attempts=3)
    assert [type(item) for item in got] == [RequestFailed, ChatCompletion] * 3
    assert str(got[0]) == "gave up after 3 tries: 500: oops"
    assert client.faults["500"] == 9


def test_three_questions_given_up_in_a_row_stop_the_run() -> None:
    with ScriptedServer(lambda *_: Reply("oops", 500)) as server:
        got, _ = ask(server.url, "a", "b", "c", max_attempts=2)
    assert [type(item) for item in got] == [RequestFailed, RequestFailed, CurioError]
    assert len(server.bodies) == 6


def test_empty_answers_never_stop_the_run() -> None:
    with ScriptedServer(lambda *_: Reply("")) as server:
        got, _ = ask(server.url, *"abcd", max_attempts=2)
    assert all(isinstance(item, RequestFailed) for item in got)
    assert len(server.bodies) == 8


def test_nobody_listening_is_a_missing_service() -> None:
    (error,), _ = ask(f"http://127.0.0.1:{free_port()}/v1", "Q", max_attempts=2)
    assert isinstance(error, CurioError)
    assert error.exit_code == 3


def test_the_wait_that_the_endpoint_asks_for_is_kept() -> None:
    """A lower bound: the second request does not come before its time."""
    with ScriptedServer(first(Reply("slow down", 429, headers={"Retry-After": "0.4"}))) as server:
        ask(server.url, "Q")
    assert server.arrivals_s[1] - server.arrivals_s[0] >= 0.4


def ask_many(server: ScriptedServer, questions: int, concurrency: int, **options: Any) -> ChatClient:
    async def main() -> ChatClient:
        async with client_of(server.url, concurrency=concurrency, **options) as client:

            async def one(question: str) -> None:
                await client.ask(question)

            await in_parallel(one, map(str, range(questions)), concurrency)
        return client

    return asyncio.run(main())


def test_requests_in_flight_are_bounded_and_the_bound_is_used() -> None:
    with ScriptedServer(lambda *_: Reply(delay_s=0.2)) as server:
        client = ask_many(server, 40, 8)
    assert server.peak == 8
    assert client.answered == 40
    assert sorted(server.messages, key=int) == [str(number) for number in range(40)]


def test_an_endpoint_with_a_rate_limit_answers_everything() -> None:
    """It refuses whatever exceeds four open requests; the client finds its pace and loses no question."""
    server = ScriptedServer(lambda *_: Reply("too many", 429) if server.open > 4 else Reply(delay_s=0.02))
    with server:
        client = ask_many(server, 60, 32, max_attempts=8)
    assert client.answered == 60
    assert client.faults["429"] > 0


def test_the_first_stop_ends_all_work() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        await asyncio.sleep(0.01)
        if item == 3:
            raise CurioError("stop here")
        done.append(item)

    with pytest.raises(CurioError, match="stop here"):
        asyncio.run(in_parallel(work, range(100), 4))
    assert len(done) < 8


def test_what_is_no_message_for_the_user_rises_as_it_is() -> None:
    async def work(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(in_parallel(work, range(3), 1))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


def test_overload_halves_the_gate_once_and_answers_open_it_again() -> None:
    gate = Gate(16)
    gate.shrink(0.0)
    gate.shrink(0.0)
    assert gate.limit == 8
    for _ in range(9):
        gate.grow()
    assert 8.9 < gate.limit < 9.1
    for _ in range(1000):
        gate.grow()
    assert gate.limit == 16


@given(st.integers(1, 20), st.lists(st.sampled_from(["enter", "leave", "shrink", "grow"]), max_size=60))
def test_the_gate_lets_in_no_more_than_its_limit_and_no_fewer(most: int, steps: list[str]) -> None:
    async def main() -> None:
        gate, inside = Gate(most), 0
        tasks: list[asyncio.Task[Gate]] = []
        for step in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(gate.__aenter__()))
            elif step == "leave" and inside:
                inside -= 1
                await gate.__aexit__()
            elif step == "shrink":
                gate.shrink(float("inf"))
            elif step == "grow":
                gate.grow()
            for _ in range(6):
                await asyncio.sleep(0)
            entered = sum(task.done() for task in tasks)
            tasks = [task for task in tasks if not task.done()]
            inside += entered
            assert not entered or inside <= int(gate.limit)
            assert not tasks or inside >= int(gate.limit)
        for task in tasks:
            task.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 0.0),
        ("", 0.0),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("9999", 300.0),
        ("nan", 0.0),
        ("soon", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float) -> None:
    assert retry_after_s(header, now_s=40.0) == expected


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(CurioError, match=f"variable {KEY} is not set") as error:
        read_key("https://api.example.com/v1", KEY)
    assert error.value.exit_code == 3
    assert read_key("http://localhost:8000/v1", KEY) == ""


def test_a_key_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "s3cr\net")
    with pytest.raises(CurioError, match="not plain text") as error:
        read_key("https://api.example.com/v1", KEY)
    assert "s3cr" not in str(error.value)


@pytest.mark.parametrize("url", ["api.example.com/v1", "ftp://example.com", "", "http://", "http://[::1"])
def test_what_is_no_address_is_bad_input(url: str) -> None:
    with pytest.raises(CurioError, match="is not an address") as error:
        read_key(url, KEY)
    assert error.value.exit_code == 2


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(CurioError) as error:
        read_key("https://me:hunter2@example.com/v1", KEY)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_this_machine(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_the_environments_proxy_is_used_for_others_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "direct.example.com")
    assert proxy_for("https://api.example.com/v1") == "http://proxy.example.com:3128"
    assert proxy_for("https://direct.example.com/v1") is None
    assert proxy_for("https://localhost/v1") is None


def test_requests_go_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "k")
    with ScriptedServer(lambda *_: Reply("through")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        (answer,), _ = ask("http://api.example.com/v1", "Q")
    assert isinstance(answer, ChatCompletion)
    assert answer.text == "through"
    assert proxy.headers[0]["Host"] == "api.example.com"


def test_what_the_environment_says_of_openai_goes_to_no_other_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {"OPENAI_API_KEY": "sk-foreign", "OPENAI_ORG_ID": "org-foreign", "OPENAI_PROJECT_ID": "proj-foreign"}
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    with ScriptedServer(lambda *_: Reply()) as server:
        ask(server.url, "Q")
    assert not [value for value in server.headers[0].values() if "foreign" in value]


@pytest.mark.parametrize("status", [401, 400, 500])
def test_a_key_that_the_endpoint_repeats_is_not_passed_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, " s3cret-token\n")
    with ScriptedServer(lambda *_: Reply("your key s3cret-token is odd", status)) as server:
        (error,), client = ask(server.url, "Q", max_attempts=1)
    assert isinstance(error, RequestFailed | CurioError)
    assert "s3cret" not in str(error)
    assert "***" in str(error)
    assert "s3cret" not in repr(client)
    assert server.headers[0]["Authorization"] == "Bearer s3cret-token"


def test_a_question_that_is_not_unicode_stops_no_other() -> None:
    with ScriptedServer(lambda *_: Reply()) as server:
        got, _ = ask(server.url, "lone \ud800 surrogate", "good")
    assert isinstance(got[0], RequestFailed)
    assert isinstance(got[1], ChatCompletion)
