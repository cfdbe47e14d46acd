"""A random two-layer Qwen2 with a byte-level tokenizer: trained and served in seconds on one core."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_tokenizer(vocab_size: int = 512) -> Qwen2Tokenizer:
    """Make a byte-level BPE tokenizer: any text round-trips, and every id below `vocab_size` is a token.

    Ids: three special tokens, the 256 bytes, then pairs of lower-case letters (259 <= `vocab_size` <= 935).
    """
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    single = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [(left, right) for left in ascii_lowercase for right in ascii_lowercase][: vocab_size - len(single)]
    tokens = single + [left + right for left, right in pairs]
    if len(tokens) != vocab_size:
        raise ValueError(f"vocab_size {vocab_size} is outside {len(single)}..{len(single) + 26**2}")
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=pairs,  # ty: ignore[invalid-argument-type]  # annotated as text, taken as pairs
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
    )


def build_tiny_model(
    folder: str | Path,
    *,
    tied: bool = True,
    vocab_size: int = 512,
    max_positions: int = 2048,
    seed: int = 0,
    spread: float = 0.1,
) -> Path:
    """Save a random float32 Qwen2 (2 layers, hidden 64, 2 heads of 32) and its tokenizer; return the folder.

    Args:
        folder: written to, made when missing.
        tied: share the embedding with the output head.
        vocab_size: see `build_tiny_tokenizer`.
        max_positions: context length in tokens.
        seed: of the weights; the global random state is left as it was.
        spread: standard deviation of the weights; 0.02 is nearly uniform, 0.1 gives clear preferences.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tiny_tokenizer(vocab_size)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=max_positions,
        initializer_range=spread,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
