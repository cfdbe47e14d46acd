"""From a problem to token ids, in one place: sft, rl and eval see exactly the same prompt (Table 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curiosft_cli.tasks.prompts import messages
from curiosft_cli.tasks.records import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model

TURN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")
THINK_OPEN = "<think>"


@dataclass(frozen=True)
class PromptFormat:
    """How a question becomes a prompt.

    Attributes:
        system: system message; none is Table 7's, "" is no system message.
        prefix: what the user message puts before the question.
        prefill: text the prompt supplies at the start of the completion.
    """

    system: str | None
    prefix: str
    prefill: str

    @classmethod
    def from_config(cls, model: Model) -> PromptFormat:
        """The format that the configuration asks for."""
        return cls(model.system_prompt, model.question_prefix, model.prefill)


@dataclass(frozen=True)
class Row:
    """One training row: prompt, then supervised response.

    Attributes:
        prompt_ids: the prompt's tokens, prefill included.
        response_ids: the supervised tokens, the end token included unless `truncated`.
        truncated: the response was cut at the longest length.
        problem_id: where it came from.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    truncated: bool = False
    problem_id: str = ""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass
class EncodeReport:
    """What did not become a whole row: ids of prompts that were too long, rows without a response, cut responses."""

    prompt_too_long: list[str] = field(default_factory=list)
    no_response: list[str] = field(default_factory=list)
    truncated: int = 0


def encode_prompt(tokenizer: PreTrainedTokenizerBase, problem: Problem, style: PromptFormat) -> list[int]:
    """The prompt's token ids: the chat template with a generation prompt, then the prefill, never twice."""
    talk = messages(problem, system=style.system, prefix=style.prefix)
    text = str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
    if style.prefill and not text.endswith(style.prefill):
        text += style.prefill
    # The template wrote the special tokens already; a second beginning-of-sequence token would shift every position.
    return tokenizer.encode(text, add_special_tokens=False)


def encode_response(
    tokenizer: PreTrainedTokenizerBase, response: str, style: PromptFormat, max_length: int
) -> tuple[list[int], bool]:
    """The response's token ids and whether it was cut: an end token closes it unless it was."""
    text = response.strip()
    if style.prefill.strip() == THINK_OPEN:
        text = text.removeprefix(THINK_OPEN).lstrip()
    ids = [*tokenizer.encode(text, add_special_tokens=False), end_token_id(tokenizer)]
    return ids[:max_length], len(ids) > max_length


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[Problem],
    style: PromptFormat,
    max_prompt: int,
    max_response: int,
) -> tuple[list[Row], EncodeReport]:
    """Encode every problem that has a response and whose prompt fits; the rest is reported, not lost in silence."""
    rows: list[Row] = []
    report = EncodeReport()
    for problem in problems:
        prompt = encode_prompt(tokenizer, problem, style)
        if not problem.response.strip():
            report.no_response.append(problem.id)
        elif len(prompt) > max_prompt:
            report.prompt_too_long.append(problem.id)
        else:
            response, cut = encode_response(tokenizer, problem.response, style, max_response)
            report.truncated += cut
            rows.append(Row(tuple(prompt), tuple(response), cut, problem.id))
    return rows, report


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant turn: the first known turn end that the chat template writes, else EOS."""
    for token in TURN_ENDS:
        if token in (tokenizer.chat_template or "") and (found := _special_id(tokenizer, token)) is not None:
            return found
    return int(tokenizer.eos_token_id)


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, model_path: str) -> tuple[int, ...]:
    """Every token that ends a completion: EOS, the model's generation settings, and the known turn ends."""
    from transformers import GenerationConfig

    try:
        configured = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:
        configured = None
    listed = configured if isinstance(configured, list) else [configured]
    known = (_special_id(tokenizer, token) for token in TURN_ENDS)
    return tuple(sorted({int(token) for token in (tokenizer.eos_token_id, *listed, *known) if token is not None}))


def decode_completion(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The completion's text without end tokens; think tags stay, also where they are tokens of their own."""
    ends = {tokenizer.eos_token_id, *(_special_id(tokenizer, token) for token in TURN_ENDS)}
    kept = list(token_ids)
    while kept and kept[-1] in ends:
        kept.pop()
    return str(tokenizer.decode(kept, skip_special_tokens=False))


def _special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    found = tokenizer.get_added_vocab().get(token)
    return None if found is None else int(found)
