"""No part of a key comes out of an endpoint's client, whatever the endpoint says."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard
from command import curiosft
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Reply, ScriptedServer
from test_chat import ask
from test_evaluate_chat import RECIPE

from curiosft_cli.engine.endpoint.masking import KeyMask
from curiosft_cli.engine.endpoint.outcomes import spent_on

KEY = "sk-Zr8q/4f9a0cX7+vW2mN5pLk3"
ECHOES: dict[str, Callable[[str], str]] = {
    "whole": str,
    "first 8": lambda key: key[:8],
    "last 8": lambda key: key[-8:],
    "middle": lambda key: key[7:19],
    "reversed": lambda key: key[::-1],
    "last 8 reversed": lambda key: key[::-1][:8],
    "upper case": str.upper,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of the header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode()[-20:],
    "base64 for addresses": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "hexadecimal": lambda key: key.encode().hex(),
    "escaped": lambda key: quote(key, safe=""),
    "doubled": lambda key: key + key,
}


@pytest.mark.parametrize("echo", ECHOES)
def test_an_echo_of_the_key_is_masked(echo: str) -> None:
    said = ECHOES[echo](KEY)
    shown = KeyMask(KEY).text(f"It is {said}, I think.")
    assert shown.startswith("It is ***")
    assert shown.endswith(", I think.")
    assert not [at for at in range(len(said) - 7) if said[at : at + 8] in shown]


@given(st.text(), st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=40), st.text())
def test_what_is_left_has_no_eight_characters_of_the_key(before: str, key: str, after: str) -> None:
    shown = KeyMask(key).text(before + key + after)
    assert not [at for at in range(len(key) - 7) if key[at : at + 8] in shown]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@settings(max_examples=50)
def test_without_a_key_nothing_changes(value: object) -> None:
    for key in ("", "EMPTY"):
        assert KeyMask(key).json(value) == value


def test_the_key_in_json_is_masked_wherever_it_is() -> None:
    shown = KeyMask(KEY).json({KEY: [{"a": f"x{KEY}"}, 3, None, [KEY]]})
    assert shown == {"***": [{"a": "x***"}, 3, None, ["***"]]}


@pytest.mark.parametrize("echo", ["whole", "reversed", "last 8", "base64"])
def test_no_file_and_no_line_of_an_evaluation_has_the_key(
    echo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint repeats it in an error, in answers (there also escaped as JSON may), and in a last error."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = ECHOES[echo](KEY)
    escaped = "".join(f"\\u{ord(sign):04x}" for sign in said)
    choice = (
        f'{{"message": {{"content": "{escaped} \\\\boxed{{1}}", "reasoning": "{escaped}"}}, "finish_reason": "stop"}}'
    )
    answer = Reply(raw=("application/json", f'{{"choices": [{choice}], "usage": {{"completion_tokens": 3}}}}'))
    file = tmp_path / "x.toml"
    with ScriptedServer(lambda number, _: answer if number else Reply(f"{said} is busy", 429)) as server:
        file.write_text(RECIPE.format(root=tmp_path / "runs", url=server.url))
        done = curiosft("eval", file, "launch.processes=0")
    assert done.returncode == 0, done.stderr
    with ScriptedServer(lambda *_: Reply(f"wrong key {said}", 401)) as server:
        refused = curiosft("eval", file, "launch.processes=0", f"eval.base_url={server.url}", "run.name=y")
    assert refused.returncode == 3
    assert "wrong key ***" in refused.stderr
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    samples = next(path for path in files if path.name.startswith("samples"))
    assert len(files) > 5
    contents = [
        zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True).read()
        if path.suffix == ".zst"
        else path.read_bytes()
        for path in files
    ]
    assert b"***" in contents[files.index(samples)]
    printed = "".join([*(content.decode() for content in contents), done.stdout, done.stderr, refused.stderr])
    assert said not in printed
    assert json.dumps(said)[1:-1] not in printed


def test_brackets_without_end_are_no_answer() -> None:
    with ScriptedServer(lambda *_: Reply(raw=("application/json", "[" * 100_000))) as server:
        (error,), client = ask(server.url, "Q", max_attempts=1)
    assert "not JSON" in str(error)
    assert client.faults == {"not JSON": 1}


def test_a_count_of_tokens_without_end_counts_nothing() -> None:
    assert spent_on({"usage": {"prompt_tokens": 10**400, "completion_tokens": 5}}) == (0, 5, 1)
