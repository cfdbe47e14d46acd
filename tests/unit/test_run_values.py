"""Values that no configuration may have: one line, the value cut short, exit code 2, no traceback, nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from command import curiosft
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.data.files import read_rows
from curiosft_cli.run.config import flatten, load, resolve
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import open_lines
from curiosft_cli.run.sections import Config

DIGITS = "9" * 5000
KEYS = [key for key, _ in flatten(Config().model_dump())]
SECRET = "v3ry-private-Value-4711"

ILLEGAL = {
    **{f"sft.learning_rate={value}": "finite" for value in ("inf", "1e999", "Infinity")},
    "sft.learning_rate=nan": "sft.learning_rate = nan",
    "sft.params.alpha=nan": "sft.params.alpha = nan",
    "sft.params.alpha=-inf": "sft.params.alpha = -inf",
    "sft.teacher.h_pivot=nan": "finite",
    "eval.vllm.swap_space=inf": "eval.vllm.swap_space",
    "sft.adam_betas=[0.9, 1.0]": "less than 1",
    "sft.adam_betas=[-0.1, 0.9]": "greater than or equal to 0",
    "rl.adam_betas=[nan, 0.9]": "rl.adam_betas",
    "sft.adam_betas=[0.9]": "sft.adam_betas",
    f"sft.epochs={DIGITS}": "sft.epochs = '999",
    f"sft.epochs=0x{DIGITS}": "sft.epochs = a number of more than 4,300 digits",
    f"sft.epochs={10**30}": "below 2^63",
    f"eval.vllm.seed={10**30}": "eval.vllm.seed",
    f"eval.pass_k=[1, {10**30}]": "eval.pass_k",
    f"run.name={DIGITS}": "run.name",
    f"sft.objective={DIGITS}": "sft.objective",
    f"sft.{DIGITS}=1": "unknown configuration key",
    f"sft.{'a.' * 100_000}b=1": "is not an override",
    f"data.train={'[' * 100_000}{']' * 100_000}": "nests brackets",
    f"data.train={'[' * 100}{']' * 100}": "nests brackets",
    f"eval.data={'{a=' * 100}1{'}' * 100}": "nests brackets",
    "eval.benchmarks=[]": "at least 1 item",
    "eval.benchmarks=math50": "benchmark 'math50' does not exist",
    "eval.benchmarks=": "eval.benchmarks",
    'eval.benchmarks=["math500", "math500"]': "'math500' is in it twice",
    "eval.checkpoints=[]": "at least 1 item",
    "run.stages=[]": "at least 1 item",
    "data.train=[]": "at least 1 item",
    "eval.pass_k=[0]": "greater than or equal to 1",
    "run.fidelity=[1]": "run.fidelity",
    "model.path=\udcff": "text must be UTF-8",
    "run.root=a\0b": "text must be UTF-8",
    "eval.data.a\0b=c": "at most 64 letters",
    f"eval.data.{DIGITS}=c": "at most 64 letters",
    "run.fidelity={a=1}": "run.fidelity",
    f"run.fidelity=0x{DIGITS}": "run.fidelity",
}


def refusal(*arguments: str) -> str:
    """The one line with which `config check` refuses these arguments."""
    done = curiosft("config", "check", *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert len(done.stderr) < 1000
    return done.stderr


@pytest.mark.parametrize("override", ILLEGAL, ids=lambda item: item[:40])
def test_an_illegal_value_is_one_short_line(override: str) -> None:
    assert ILLEGAL[override] in refusal("curio", override)


@pytest.mark.parametrize(
    "overrides",
    [
        ("sft.epochs=3", "sft.epochs=3"),
        ("sft.epochs=3", " sft.epochs =4"),
        ("sft.teacher={gamma=1.0}", "sft.teacher.gamma=2.0"),
        ("sft.teacher.gamma=2.0", "sft.teacher={gamma=1.0}"),
        ("sft.epochs=3", "sft.epochs.a=4"),
    ],
)
def test_a_key_is_given_once(overrides: tuple[str, ...]) -> None:
    assert "is given twice" in refusal("curio", *overrides)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 100_000,
        "a." * 100_000 + "b = 1",
        "[" + "a." * 100_000 + "b]",
        f"[sft]\nepochs = {DIGITS}",
        "[sft]\nepochs = 1\nepochs = 1",
        "\x00",
    ],
    ids=["brackets", "braces", "keys", "tables", "digits", "repeated", "nul"],
)
def test_a_nasty_file_is_one_short_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    assert str(file) in refusal(str(file))


anything: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([5000]).map(lambda digits: 10**digits),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(KEYS), anything)
@settings(max_examples=300, deadline=None)
def test_no_value_of_any_key_is_a_traceback(key: str, value: Any) -> None:
    tree: dict[str, Any] = {}
    node = tree
    for part in key.split(".")[:-1]:
        node = node.setdefault(part, {})
    node[key.split(".")[-1]] = value
    try:
        resolve(tree, {}, origin="test")
    except CurioError as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize("key", ["rephrase.base_url", "eval.base_url", "rl.servers"])
@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "nowhere",
            "ftp://host/v1",
            "http://",
            "http:///v1",
            "http://[::1",
            "http://host:port",
            "http://host:99999",
        ),
        *(f"https://user:{SECRET}@host/v1", f"https://{SECRET}@host", f"https://host/v1?api_key={SECRET}"),
        *(f"https://host/v1#{SECRET}", f"https://host/v1;key={SECRET}", f"https://host\\@{SECRET}", SECRET),
        *(f"//user:{SECRET}@host", f"https://user:{SECRET}@[::1", f"https://host/%3Fkey={SECRET}"),
        f"[{{a='https://user:{SECRET}@host'}}]",
    ],
)
def test_an_address_is_only_an_address(key: str, address: str) -> None:
    said = refusal("curio", f"{key}={address}")
    assert key in said
    assert SECRET not in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/v1", "https://api.deepseek.com", "http://[::1]:80/v1"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    config = load("curio", [f"rephrase.base_url={address}", f"eval.base_url={address}", f"rl.servers={address}"]).config
    assert (config.rephrase.base_url, config.eval.base_url, *config.rl.servers) == (address,) * 3


@pytest.mark.parametrize("section", ["rephrase", "eval"])
@pytest.mark.parametrize(
    "key", ["sk-4f9a0c17d2", "deadbeef01234567", "123456789012", '["sk-4f9a0c17d2"]', "{a='sk-4f9a'}"]
)
def test_a_key_in_place_of_its_variable_is_not_repeated(section: str, key: str) -> None:
    said = refusal("curio", f"{section}.api_key_env={key}")
    assert f"{section}.api_key_env is not the name" in said or f"{section}.api_key_env.0" in said
    assert not any(part in said for part in ("4f9a", "deadbeef", "123456"))


@pytest.mark.parametrize(
    "place", ["rephrase.model", "run.root", "eval.vllm.hf_token", "rephrase.base_url", "data.train"]
)
@pytest.mark.parametrize("variable", ["DEEPSEEK_API_KEY", "HF_TOKEN"])
def test_a_secret_of_the_environment_is_in_no_value(place: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, f" {SECRET}\n")
    said = refusal("curio", f"{place}=https://host/{SECRET}/v1")
    assert place in said
    assert variable in said
    assert SECRET not in said


@pytest.fixture(params=["pipe", "device", "folder"])
def odd_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something at a path that can be opened, and whose content never ends, or is none."""
    path = tmp_path / "odd.jsonl"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_only_a_file_is_read(odd_file: Path) -> None:
    assert str(odd_file) in refusal(str(odd_file))
    graded = curiosft("grade", odd_file)
    assert graded.returncode == 2
    assert "expected a" in graded.stderr
    for read in (lambda: list(read_rows(odd_file)), lambda: open_lines(odd_file)):
        with pytest.raises(CurioError, match=r"is a (folder|pipe)"):
            read()


def test_grades_replace_no_device(tmp_path: Path) -> None:
    out, rows = tmp_path / "device", tmp_path / "rows.jsonl"
    os.mkfifo(out)
    rows.write_text('{"id": 1, "response": "2", "gold": "2"}\n')
    done = curiosft("grade", rows, "--out", out)
    assert done.returncode == 2
    assert out.is_fifo()


@pytest.mark.parametrize("rows", [DIGITS, "9" * 20])
def test_a_generator_without_end_is_refused(rows: str) -> None:
    done = curiosft("data", "check", f"arithmetic:train:{rows}", "check.depth=quick")
    assert done.returncode == 2
    assert len(done.stderr) < 1000


def test_deep_data_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    done = curiosft("data", "check", file, "check.depth=quick")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
