"""One way from a problem to token ids: the prompt of sft is the prompt of rl and eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.data.prompts import SYSTEM_PROMPT, messages
from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import to_problem
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Model
from curiosft_cli.train.encode import (
    PromptFormat,
    decode_completion,
    encode_prompt,
    encode_response,
    encode_row,
    end_token_id,
    response_text,
    stop_token_ids,
)
from curiosft_cli.train.feed import usable, with_response
from curiosft_cli.train.load import load_tokenizer

PROBLEM = Problem("1", "What is 1+1?", "2", response="1+1=2\n</think>\n\\boxed{2}")
TABLE_7 = PromptFormat.from_config(Model())


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(str(tiny_model), Model())


def test_table_7_in_qwens_markers(tokenizer: Any) -> None:
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, TABLE_7))
    assert text == (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        "<|im_start|>user\nHere is the question: What is 1+1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


@pytest.mark.parametrize("opening", ["<think>\n", "<think>"])
def test_a_template_that_opens_the_thought_itself_gets_no_second_tag(tiny_model: Path, opening: str) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    plain = tokenizer.chat_template
    tokenizer.chat_template = plain.replace("assistant\n", f"assistant\n{opening}")
    assert tokenizer.chat_template != plain
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, TABLE_7))
    assert text.endswith("<|im_start|>assistant\n<think>\n")
    assert text.count("<think>") == SYSTEM_PROMPT.count("<think>") + 1


def with_default_system(plain: str) -> str:
    """The template, made to put in a system message of its own when the messages have none, as Qwen2.5's does."""
    default = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    return default + plain


def test_no_system_message_keeps_the_templates_default_out(tiny_model: Path) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    tokenizer.chat_template = with_default_system(tokenizer.chat_template)
    assert "Be kind." not in tokenizer.decode(encode_prompt(tokenizer, PROBLEM, PromptFormat("", "", "")))
    with_ours = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, TABLE_7))
    assert with_ours.count("<|im_start|>system") == 1


def test_no_system_message_means_no_system_turn_where_the_template_has_none(tiny_model: Path) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, PromptFormat("", "", "")))
    assert text == "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_without_a_system_role_says_what_to_set(tiny_model: Path) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    with pytest.raises(CurioError, match=r"no system role.*model\.system_prompt"):
        encode_prompt(tokenizer, PROBLEM, TABLE_7)
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, PromptFormat("", "", "")))
    assert text.startswith("<|im_start|>user\n")


def test_prompt_and_response_are_the_templates_own_conversation(tokenizer: Any) -> None:
    """Tokenised apart, the two parts are what the chat template gives for the whole conversation."""
    talk = messages(PROBLEM, system=None, prefix=TABLE_7.prefix)
    answer = {"role": "assistant", "content": "<think>\n" + PROBLEM.response}
    whole = tokenizer.apply_chat_template([*talk, answer], tokenize=False)
    row = encode_row(tokenizer, PROBLEM, TABLE_7, 100)
    expected = tokenizer.encode(str(whole).removesuffix("\n"), add_special_tokens=False)
    assert [*row.prompt_ids, *row.response_ids] == expected


@pytest.mark.parametrize("response", ["", "  \n", "<think>", "<think>\n "])
def test_a_response_of_nothing_but_the_opening_tag_is_no_response(response: str) -> None:
    lacking: list[str] = []
    found = [("row 1", {"response": response}, Problem("3", "Why?", "1", response=response))]
    assert list(with_response(found, TABLE_7, lacking)) == []
    assert lacking == ["row 1: column response: found no text, expected the expert's response"]


def test_no_second_beginning_of_sequence(tiny_model: Path) -> None:
    """Llama's template writes the token, and its tokenizer would add another."""
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    ids = encode_prompt(tokenizer, PROBLEM, TABLE_7)
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("opening", ["", "<think>\n", "<think>", " <think>\n\n"])
def test_the_opening_tag_belongs_to_the_prompt(tokenizer: Any, opening: str) -> None:
    ids, cut = encode_response(tokenizer, opening + PROBLEM.response, TABLE_7, 100)
    assert tokenizer.decode(ids) == PROBLEM.response + "<|im_end|>"
    assert not cut


def test_without_prefill_the_tag_stays(tokenizer: Any) -> None:
    plain = PromptFormat("", "", "")
    assert tokenizer.decode(encode_prompt(tokenizer, PROBLEM, plain)).endswith("<|im_start|>assistant\n")
    ids, _ = encode_response(tokenizer, "<think>\na", plain, 100)
    assert tokenizer.decode(ids).startswith("<think>\na")


def test_without_prefill_a_stored_thought_gets_its_tag_back(tokenizer: Any) -> None:
    """Reading a file drops the tag, and a model that never learned to write it would earn no reward."""
    read = to_problem({"problem": "Q", "solution": "<think>\na\n</think>\n\nb"}, "x").response
    for prefill, begins in {"": "<think>\na\n</think>", "<think>\n": "a\n</think>", "<think> Well,": "a\n"}.items():
        ids, _ = encode_response(tokenizer, read, PromptFormat("", "", prefill), 100)
        assert tokenizer.decode(ids).startswith(begins)
    assert response_text("no thought", PromptFormat("", "", "")) == "no thought"


def test_the_end_token_of_a_response_can_be_the_tokenizers(tiny_model: Path) -> None:
    """Where template and tokenizer end a turn differently: the turn end by default, the tokenizer's on request (D19)."""
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    tokenizer.eos_token = "<|endoftext|>"
    ends = {
        name: encode_response(tokenizer, "5", PromptFormat.from_config(Model(end_token=name)), 99)[0][-1]
        for name in ("turn", "tokenizer")
    }
    known = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert ends == dict(zip(("turn", "tokenizer"), known, strict=True))
    assert known[0] != known[1]


def test_a_cut_response_has_no_end_token_and_is_counted(tokenizer: Any) -> None:
    whole, _ = encode_response(tokenizer, PROBLEM.response, TABLE_7, 100)
    row = encode_row(tokenizer, PROBLEM, TABLE_7, len(whole) - 1)
    assert row.response_ids == tuple(whole[:-1])
    assert row.truncated
    row = encode_row(tokenizer, PROBLEM, TABLE_7, len(whole))
    assert row.response_ids[-1] == end_token_id(tokenizer)
    assert not row.truncated


def test_no_prompt_is_dropped_in_silence(tokenizer: Any) -> None:
    too_long: list[str] = []
    assert list(usable(tokenizer, [PROBLEM], TABLE_7, 10, too_long)) == []
    assert too_long == ["1"]


def test_stop_tokens_and_decoding(tokenizer: Any, tiny_model: Path) -> None:
    stops = stop_token_ids(tokenizer, str(tiny_model))
    assert set(tokenizer.convert_ids_to_tokens(list(stops))) == {"<|im_end|>", "<|endoftext|>"}
    ids = tokenizer.encode("a</think>b<|im_end|>", add_special_tokens=False)
    assert decode_completion(tokenizer, ids) == "a</think>b"
