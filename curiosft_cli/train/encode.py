"""From a problem to token ids, in one place: sft, rl and eval see exactly the same prompt (Table 7)."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from curiosft_cli.data.prompts import messages
from curiosft_cli.data.records import Problem
from curiosft_cli.data.response_format import END_TOKENS, THINK_CLOSE, THINK_OPEN
from curiosft_cli.run.errors import CurioError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model

EndToken = Literal["turn", "tokenizer"]


@dataclass(frozen=True)
class PromptFormat:
    """How a question becomes a prompt.

    Attributes:
        system: system message; None is that of Table 7, "" is no system message.
        prefix: what the user message puts before the question.
        prefill: text the prompt supplies at the start of the completion.
        end_token: what ends a supervised response: the turn end of the template, or the tokenizer's end token.
    """

    system: str | None
    prefix: str
    prefill: str
    end_token: EndToken = "turn"

    @classmethod
    def from_config(cls, model: Model) -> PromptFormat:
        """The format that the configuration asks for."""
        return cls(model.system_prompt, model.question_prefix, model.prefill, model.end_token)


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


def encode_prompt(tokenizer: PreTrainedTokenizerBase, problem: Problem, style: PromptFormat) -> list[int]:
    """The prompt's token ids: the chat template with a generation prompt, then the prefill, never twice.

    Raises:
        CurioError: the template refuses the messages.
    """
    talk = messages(problem, system=style.system, prefix=style.prefix)
    text = render_chat(tokenizer, talk)
    if talk[0]["role"] != "system":
        # Some templates add a system message of their own where the talk has none: they get an empty one instead.
        with contextlib.suppress(CurioError):  # others refuse every system message
            text = min(text, render_chat(tokenizer, [{"role": "system", "content": ""}, *talk]), key=len)
    if opening := style.prefill.strip():
        text = text.rstrip().removesuffix(opening) if text.rstrip().endswith(opening) else text
    text += style.prefill
    # The template wrote the special tokens already; a second beginning-of-sequence token would shift every position.
    return tokenizer.encode(text, add_special_tokens=False)


def response_text(response: str, style: PromptFormat) -> str:
    """What the model is to write: the stored response without outer whitespace and without what the prompt supplies."""
    text = response.strip()
    if style.prefill.strip() == THINK_OPEN:
        return text.removeprefix(THINK_OPEN).lstrip()
    # Responses are stored without the tag that opens their thought: where no prompt supplies it, the model writes it.
    opens = THINK_CLOSE in text and THINK_OPEN not in text + style.prefill
    return f"{THINK_OPEN}\n{text}" if opens else text


def encode_response(
    tokenizer: PreTrainedTokenizerBase, response: str, style: PromptFormat, max_length: int
) -> tuple[list[int], bool]:
    """The response's token ids and whether it was cut: an end token closes it unless it was."""
    text = response_text(response, style)
    ids = [*tokenizer.encode(text, add_special_tokens=False), end_token_id(tokenizer, style.end_token)]
    return ids[:max_length], len(ids) > max_length


def encode_row(tokenizer: PreTrainedTokenizerBase, problem: Problem, style: PromptFormat, max_response: int) -> Row:
    """Prompt and response of one problem; see `encode_prompt` and `encode_response`."""
    response, cut = encode_response(tokenizer, problem.response, style, max_response)
    return Row(tuple(encode_prompt(tokenizer, problem, style)), tuple(response), cut, problem.id)


def end_token_id(tokenizer: PreTrainedTokenizerBase, end_token: EndToken = "turn") -> int:
    """The token that ends a response: the first known turn end that the chat template writes, else EOS; or EOS."""
    for token in END_TOKENS if end_token == "turn" else ():
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
    return with_known_stops(tokenizer, configured)


def with_known_stops(tokenizer: PreTrainedTokenizerBase, configured: int | list[int] | None) -> tuple[int, ...]:
    """The configured end tokens, the tokenizer's EOS, and the known turn ends that it has; ascending."""
    listed = configured if isinstance(configured, list) else [configured]
    known = (_special_id(tokenizer, token) for token in END_TOKENS)
    return tuple(sorted({int(token) for token in (tokenizer.eos_token_id, *listed, *known) if token is not None}))


def decode_completion(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The completion's text without end tokens; think tags stay, also where they are tokens of their own."""
    ends = {tokenizer.eos_token_id, *(_special_id(tokenizer, token) for token in END_TOKENS)}
    kept = list(token_ids)
    while kept and kept[-1] in ends:
        kept.pop()
    return str(tokenizer.decode(kept, skip_special_tokens=False))


def render_chat(
    tokenizer: PreTrainedTokenizerBase, talk: list[dict[str, str]], *, opened: bool = True, limit_s: float = 2.0
) -> str:
    """The chat template's text, with the assistant's turn `opened` behind it.

    A template is a program. In the main thread it has `limit_s` seconds of processor time, so a template that loops is
    found where the tokenizer is opened.

    Raises:
        CurioError: the template refuses these messages, fails, or needs too long.
    """

    def stop(*_: object) -> None:
        raise TimeoutError(f"it still ran after {limit_s:g} s")

    limited = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGVTALRM, stop) if limited else None
    try:
        if limited:
            signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=opened))
    except Exception as error:  # a template is code from elsewhere: it can fail in every way
        reason = str(error).rstrip(".") or type(error).__name__
        raise CurioError(
            f"the chat template of {tokenizer.name_or_path} refuses the messages: {reason}",
            'Where it knows no system role, set model.system_prompt="" and put the text into model.question_prefix.',
        ) from None
    finally:
        if limited:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def _special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    found = tokenizer.get_added_vocab().get(token)
    return None if found is None else int(found)
