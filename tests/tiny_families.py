"""Random tiny models of the families that matter, sharded or not, tied or not, as a hub folder would hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import build_tiny_tokenizer

LLAMA_MARKERS = {
    "<|endoftext|>": "<|begin_of_text|>",
    "<|im_start|>": "<|start_header_id|>",
    "<|im_end|>": "<|eot_id|>",
}
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant of some company."
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def build_family(folder: Path, family: str, *, tied: bool = True, sharded: bool = False) -> Path:
    """Save a random two-layer model of `qwen2`, `qwen3` or `llama` with a base model's defects; return the folder.

    The context is 64 tokens at RoPE base 10000, Llama has no padding token and no template, Qwen's end of turn is not
    among its stop tokens.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = family_tokenizer(family)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True, top_k=20)
    model.save_pretrained(folder, max_shard_size="120KB" if sharded else "1GB")
    tokenizer.save_pretrained(folder)
    return folder


def family_tokenizer(family: str) -> Any:
    """The tokenizer as a base model has it: its end token ends a text, not a turn."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = QWEN_TEMPLATE
    if family == "qwen3":
        tokenizer.add_tokens(["<think>", "</think>"])
    return _with_llama_markers(tokenizer) if family == "llama" else tokenizer


def _with_llama_markers(tokenizer: Any) -> Any:
    """The same vocabulary under Llama's names, without template and padding token."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    text = tokenizer.backend_tokenizer.to_str()
    for old, new in LLAMA_MARKERS.items():
        text = text.replace(old, new)
    renamed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )
    renamed.add_special_tokens({"additional_special_tokens": ["<|end_header_id|>"]})
    return renamed
