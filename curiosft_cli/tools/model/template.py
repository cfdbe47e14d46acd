"""The chat template of a prepared model: Table 7 for a bare question, and an opening think tag for the answer.

A conversation without a system message gets the system message and the question prefix. One with its own system message
stays as it is. So the trainer's messages, which have one, and a bare question to a server give the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curiosft_cli.data.prompts import SYSTEM_PROMPT
from curiosft_cli.run.errors import CurioError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model


@dataclass(frozen=True)
class Markers:
    """The markers of a turn in a model family: before the role, between role and content, after the content."""

    before: str
    between: str
    after: str
    start_with_bos: bool


MARKERS: dict[str, Markers] = {
    "ChatML": Markers("<|im_start|>", "\n", "<|im_end|>\n", start_with_bos=False),
    "Llama 3": Markers("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", start_with_bos=True),
}


def prepared_template(tokenizer: PreTrainedTokenizerBase, settings: Model) -> tuple[str, str]:
    """The template, and the name of its markers.

    A template with other markers is kept, with the defaults before it and the prefill after it.

    Raises:
        CurioError: there is no template, and the vocabulary has no known markers.
    """
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    vocabulary = tokenizer.get_added_vocab()
    defaults = _defaults(settings)
    for name, markers in MARKERS.items():
        known = all(token.strip() in vocabulary for token in (markers.before, markers.after))
        if known and (not own or markers.before in own):
            return defaults + _turns(markers, settings.prefill), name
    if not own:
        raise CurioError(
            f"the tokenizer of {tokenizer.name_or_path} has neither a chat template nor the markers of "
            f"{' or '.join(MARKERS)}",
            "Take the instruct or chat version of the model.",
        )
    return defaults + own + _opening(tokenizer, settings.prefill), "its own"


def _defaults(settings: Model) -> str:
    """Jinja code that adds the system message and the question prefix, if there is no system message."""
    system = SYSTEM_PROMPT if settings.system_prompt is None else settings.system_prompt
    head = f"[{{'role': 'system', 'content': {literal(system)}}}] + " if system else ""
    prefix = literal(settings.question_prefix)
    return (
        "{%- if messages and messages[0]['role'] == 'user' -%}"
        "{%- set question = messages[0]['content'] -%}"
        f"{{%- if not question.startswith({prefix}) -%}}{{%- set question = {prefix} + question -%}}{{%- endif -%}}"
        f"{{%- set messages = {head}[{{'role': 'user', 'content': question}}] + messages[1:] -%}}"
        "{%- endif -%}"
    )


def _turns(markers: Markers, prefill: str) -> str:
    """Jinja code that writes every turn, except an empty system message, and then opens the answer."""
    bos = "{{- bos_token -}}" if markers.start_with_bos else ""
    before, between, after = literal(markers.before), literal(markers.between), literal(markers.after)
    return (
        bos + "{%- for message in messages -%}"
        "{%- if message['role'] != 'system' or message['content'] -%}"
        f"{{{{- {before} + message['role'] + {between} + message['content'] + {after} -}}}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}"
        f"{{{{- {before} + 'assistant' + {between} + {literal(prefill)} -}}}}"
        "{%- endif -%}"
    )


def _opening(tokenizer: PreTrainedTokenizerBase, prefill: str) -> str:
    """Jinja code that adds the part of the prefill that the model's own template does not write.

    Raises:
        CurioError: the template fails on a bare question.
    """
    from curiosft_cli.train.encode import render_chat

    text = render_chat(tokenizer, [{"role": "user", "content": "?"}])
    opening = prefill.strip()
    if opening and text.rstrip().endswith(opening):
        missing = prefill.partition(opening)[2].removeprefix(text[len(text.rstrip()) :])
    else:
        missing = prefill
    return f"{{% if add_generation_prompt %}}{{{{ {literal(missing)} }}}}{{% endif %}}" if missing else ""


def literal(text: str) -> str:
    """The text as a Jinja string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
