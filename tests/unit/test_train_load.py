"""Opening models: the context that is asked for is the one that is used, and what is missing is named in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run import device
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Model
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.encode import Row
from curiosft_cli.train.load import body_and_head, check_context, compute_dtype, load_model, load_tokenizer
from curiosft_cli.train.student import Student


def opened(path: Path, **settings: object) -> Any:
    return load_model(str(path), Model.model_validate(settings), dtype=torch.float32, device="cpu")


def test_rope_base_and_context_reach_the_rotation_and_the_saved_configuration(tiny_model: Path, tmp_path: Path) -> None:
    """Head width 32: the second frequency is theta^(-2/32)."""
    model = opened(tiny_model, rope_theta=40000.0, max_position_embeddings=16384)
    assert float(model.model.rotary_emb.inv_freq[1]) == pytest.approx(40000.0 ** (-2 / 32))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["max_position_embeddings"] == 16384
    assert saved["rope_parameters"]["rope_theta"] == 40000.0


def test_weights_are_the_checkpoints(tiny_model: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for ours, theirs in zip(opened(tiny_model).parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_are_those_of_each_row_alone(tiny_model: Path, family: str, attention: str) -> None:
    if family == "qwen2":
        model: Any = opened(tiny_model, attention=attention)
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, initializer_range=0.1,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        model.set_attn_implementation(attention)
    model.eval()
    assert model.config._attn_implementation == attention
    rows = [torch.arange(5, 14), torch.arange(40, 44), torch.arange(7, 30)]
    body, weight = body_and_head(model)
    with torch.no_grad():
        ids = torch.cat(rows)[None]
        positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
        packed = body(input_ids=ids, position_ids=positions)[0] @ weight.t()
        alone = torch.cat([model(row[None], use_cache=False).logits[0] for row in rows])
        unaware = model(ids, use_cache=False).logits[0]
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)
    assert (unaware - alone).abs().max() > 0.01  # the rows would be seen if they could read each other


def test_context_is_checked_with_the_override(tiny_model: Path) -> None:
    assert check_context(str(tiny_model), Model(), 2048) == 2048
    with pytest.raises(CurioError, match=r"need 2049 tokens.*is 2048.*rope_theta"):
        check_context(str(tiny_model), Model(), 2049)
    assert check_context(str(tiny_model), Model(max_position_embeddings=4096), 2049) == 2049


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "nobody/nothing"])
def test_what_does_not_exist_is_one_line_that_names_it(path: str) -> None:
    for attempt in (
        lambda: load_tokenizer(path, Model()),
        lambda: load_model(path, Model(), dtype=torch.float32, device="cpu"),
        lambda: check_context(path, Model(), 1),
    ):
        with pytest.raises(CurioError, match=path) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_no_chat_template_and_no_tokenizer_are_named(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer: Any = load_tokenizer(str(tiny_model), Model())
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(CurioError, match="no chat template"):
        load_tokenizer(str(tmp_path / "bare"), Model())
    (tmp_path / "empty").mkdir()
    with pytest.raises(CurioError, match="cannot open a tokenizer"):
        load_tokenizer(str(tmp_path / "empty"), Model())


def test_pickled_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = opened(tiny_model)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CurioError, match="cannot open a model"):
        opened(tmp_path)


def test_the_dtype_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute_dtype("float32", "cpu") == torch.float32
    assert compute_dtype("bfloat16", "cpu") == torch.bfloat16
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda native=native: native)
        assert compute_dtype("auto", "cpu") == expected
        # Older GPUs emulate bfloat16, slower than float32.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: n or including_emulation
        )
        assert compute_dtype("auto", "cuda") == expected


def gradients(path: Path, *, compiled: bool = False, checkpointing: bool = False) -> dict[str, torch.Tensor]:
    """Of two packs with different rows."""
    model = load_model(str(path), Model(), dtype=torch.float32, device="cpu", compiled=compiled).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    student = Student(model, chunk=8, compute_dtype=torch.float32, compiled=compiled)
    rows = [Row((5, 6, 7), tuple(range(8, 20))), Row((9,), (10, 11, 12, 13))]
    for members in ([0, 1], [1]):
        pack = make_pack(rows, members, "cpu")
        weights = torch.full((len(pack.labels),), 1 / len(pack.labels))
        student(pack, SFT_OBJECTIVES["sft"].bind(), {}, weights)[0].backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_recomputing_activations_changes_no_gradient(tiny_model: Path) -> None:
    plain, recomputed = gradients(tiny_model), gradients(tiny_model, checkpointing=True)
    assert plain.keys() == recomputed.keys() and all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_a_compiled_transformer_has_the_same_gradients(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is made as ever and run uncompiled: a compiler would take a minute, and need not be there."""
    compile_module, made = torch.nn.Module.compile, []

    def traced(module: torch.nn.Module, **options: Any) -> None:
        made.append(options)
        compile_module(module, **options, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    plain, compiled = gradients(tiny_model), gradients(tiny_model, compiled=True)
    assert made == [{"dynamic": True}] * 2  # of each layer
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-5, rtol=1e-4)
