"""One way from a problem to token ids: the prompt of sft is the prompt of rl and eval."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from curiosft_cli.run.sections import Model
from curiosft_cli.tasks.prompts import SYSTEM_PROMPT
from curiosft_cli.tasks.records import Problem
from curiosft_cli.train.encode import (
    PromptFormat,
    decode_completion,
    encode_prompt,
    encode_response,
    encode_rows,
    end_token_id,
    stop_token_ids,
)

PROBLEM = Problem("1", "What is 1+1?", "2", response="1+1=2\n</think>\n\\boxed{2}")
TABLE_7 = PromptFormat.from_config(Model())


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def test_table_7_in_qwens_markers(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, TABLE_7))
    assert text == (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        "<|im_start|>user\nHere is the question: What is 1+1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_a_template_that_opens_the_thought_itself_gets_no_second_tag(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "assistant\\n<think>\\n")
    text = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, TABLE_7))
    assert text.endswith("<|im_start|>assistant\n<think>\n")
    assert text.count("<think>") == SYSTEM_PROMPT.count("<think>") + 1


def test_no_second_beginning_of_sequence(tiny_model: Path) -> None:
    """Llama's template writes the token, and its tokenizer would add another."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    ids = encode_prompt(tokenizer, PROBLEM, TABLE_7)
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("opening", ["", "<think>\n", "<think>", " <think>\n\n"])
def test_the_opening_tag_belongs_to_the_prompt(tokenizer: PreTrainedTokenizerBase, opening: str) -> None:
    ids, cut = encode_response(tokenizer, opening + PROBLEM.response, TABLE_7, 100)
    assert tokenizer.decode(ids) == PROBLEM.response + "<|im_end|>"
    assert not cut


def test_without_prefill_the_tag_stays(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = PromptFormat("", "", "")
    assert tokenizer.decode(encode_prompt(tokenizer, PROBLEM, plain)).endswith("<|im_start|>assistant\n")
    ids, _ = encode_response(tokenizer, "<think>\na", plain, 100)
    assert tokenizer.decode(ids).startswith("<think>\na")


def test_a_cut_response_has_no_end_token_and_is_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    whole, _ = encode_response(tokenizer, PROBLEM.response, TABLE_7, 100)
    rows, report = encode_rows(tokenizer, [PROBLEM], TABLE_7, 4096, len(whole) - 1)
    assert rows[0].response_ids == tuple(whole[:-1])
    assert rows[0].truncated
    assert report.truncated == 1
    rows, report = encode_rows(tokenizer, [PROBLEM], TABLE_7, 4096, len(whole))
    assert rows[0].response_ids[-1] == end_token_id(tokenizer)
    assert report.truncated == 0


def test_no_row_is_dropped_in_silence(tokenizer: PreTrainedTokenizerBase) -> None:
    silent = Problem("2", "Why?", "1")
    rows, report = encode_rows(tokenizer, [PROBLEM, silent], TABLE_7, 10, 100)
    assert rows == []
    assert report.prompt_too_long == ["1"]
    assert report.no_response == ["2"]


def test_stop_tokens_and_decoding(tokenizer: PreTrainedTokenizerBase, tiny_model: Path) -> None:
    stops = stop_token_ids(tokenizer, str(tiny_model))
    assert set(tokenizer.convert_ids_to_tokens(list(stops))) == {"<|im_end|>", "<|endoftext|>"}
    ids = tokenizer.encode("a</think>b<|im_end|>", add_special_tokens=False)
    assert decode_completion(tokenizer, ids) == "a</think>b"
