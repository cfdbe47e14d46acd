"""Prepared models: the prompt is the trainer's to the token, the weights are the original's to the bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import build_tiny_tokenizer
from tiny_families import OTHER_TEMPLATE, build_family, family_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from curiosft_cli.data.prompts import SYSTEM_PROMPT
from curiosft_cli.data.records import Problem
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Config, Model
from curiosft_cli.tools.model.check import check_model
from curiosft_cli.tools.model.prepare import context_config, prepare_model
from curiosft_cli.tools.model.template import literal, prepared_template
from curiosft_cli.train.encode import PromptFormat, encode_prompt, end_token_id, stop_token_ids

QUESTION = "What is $\\frac{1}{2}$ of {x}? It's 'so' \\n."
PROBLEM = Problem("1", QUESTION, "2")
CHOICE = Problem("2", "Which?", "B", kind="choice", choices=("one", "two"))
QUIET = Console(enabled=False)
VARIANTS = [(family, tied, sharded) for family in ("qwen2", "qwen3", "llama") for tied in (True, False) for sharded in (True, False)]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool, bool], tuple[Path, Path]]:
    """Every variant: as it was, and prepared."""
    root = tmp_path_factory.mktemp("families")
    made = {}
    for family, tied, sharded in VARIANTS:
        name = f"{family}-{tied}-{sharded}"
        source = build_family(root / name, family, tied=tied, sharded=sharded)
        prepare_model(str(source), root / f"{name}-prepared", Config(), QUIET)
        made[family, tied, sharded] = (source, root / f"{name}-prepared")
    return made


def chat(tokenizer: Any, *messages: tuple[str, str]) -> str:
    talk = [{"role": role, "content": content} for role, content in messages]
    return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_weights_are_the_same_and_the_model_loads(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], variant: tuple[str, bool, bool]
) -> None:
    source, prepared = folders[variant]
    files = sorted(path.name for path in source.glob("*.safetensors*"))
    assert len(files) > 3 if variant[2] else files == ["model.safetensors"]
    assert [(prepared / name).read_bytes() for name in files] == [(source / name).read_bytes() for name in files]
    before: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    after: Any = AutoModelForCausalLM.from_pretrained(prepared, dtype=torch.float32)
    for ours, theirs in zip(after.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (after.lm_head.weight is after.model.embed_tokens.weight) == variant[1]
    # 64 tokens doubled to 16384 is a factor of 256 on the RoPE base of 10000; heads are 32 wide.
    assert after.config.max_position_embeddings == 16384
    assert float(after.model.rotary_emb.inv_freq[1]) == pytest.approx(2_560_000.0 ** (-2 / 32))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_bare_question_is_the_trainers_prompt_to_the_token(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], family: str
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folders[family, True, False][1])
    style = PromptFormat.from_config(Model())
    text = chat(tokenizer, ("user", QUESTION))
    assert tokenizer.encode(text, add_special_tokens=False) == encode_prompt(tokenizer, PROBLEM, style)
    choice = chat(tokenizer, ("user", "Which?\n\nA) one\nB) two"))
    assert tokenizer.encode(choice, add_special_tokens=False) == encode_prompt(tokenizer, CHOICE, style)
    user = f"Here is the question: {QUESTION}"
    if family == "llama":
        expected = (
            f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM_PROMPT}<|eot_id|>"
            f"<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n<think>\n"
        )
    else:
        expected = (
            f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n"
        )
    assert text == expected


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_prompt_of_a_prepared_model_is_that_of_the_original(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], family: str
) -> None:
    """What the trainer builds does not depend on whether the model was prepared; Llama's original has no template."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folders[family, True, False][1])
    original: Any = AutoTokenizer.from_pretrained(folders[family, True, False][0])
    original.chat_template = original.chat_template or (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    for settings in (Model(), Model(system_prompt=""), Model(system_prompt="Be kind.", question_prefix="", prefill="")):
        style = PromptFormat.from_config(settings)
        if settings.prefill:
            assert encode_prompt(tokenizer, PROBLEM, style)[-3:] == encode_prompt(original, PROBLEM, style)[-3:]
        if settings.system_prompt != "":
            ours = tokenizer.decode(encode_prompt(tokenizer, PROBLEM, style)).removesuffix("<think>\n")
            theirs = tokenizer.decode(encode_prompt(original, PROBLEM, style)).removesuffix("<think>\n")
            assert ours == theirs


def test_an_own_system_message_and_later_turns_are_left_alone() -> None:
    tokenizer: Any = family_tokenizer("qwen2")
    tokenizer.chat_template = prepared_template(tokenizer, Model())[0]
    assert chat(tokenizer, ("system", "Be kind."), ("user", "Hi")) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert "system" not in chat(tokenizer, ("system", ""), ("user", "Hi"))
    text = chat(tokenizer, ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert text.endswith(
        "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert text.count("Here is the question: ") == 1
    assert "Here is the question: Here" not in chat(tokenizer, ("user", "Here is the question: a"))
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert whole.endswith("a<|im_end|>\n")


def test_the_prompt_of_the_settings_is_the_prompt_of_the_template() -> None:
    settings = Model(
        system_prompt="It's \\n 'quoted' {{ x }} {% y %}.", question_prefix="Q'\\: ", prefill="<think>\n\n"
    )
    tokenizer: Any = family_tokenizer("qwen2")
    tokenizer.chat_template = prepared_template(tokenizer, settings)[0]
    text = chat(tokenizer, ("user", QUESTION))
    assert f"system\n{settings.system_prompt}<|im_end|>" in text
    assert f"user\n{settings.question_prefix}{QUESTION}<|im_end|>" in text
    assert text.endswith("assistant\n<think>\n\n")
    style = PromptFormat.from_config(settings)
    assert tokenizer.encode(text, add_special_tokens=False) == encode_prompt(tokenizer, PROBLEM, style)


@pytest.mark.parametrize("opened", ["", "<think>", "<think>\n"])
def test_another_familys_template_is_kept_and_completed(opened: str) -> None:
    tokenizer: Any = build_tiny_tokenizer()
    tokenizer.chat_template = OTHER_TEMPLATE.replace("[assistant] ", f"[assistant] {opened}")
    tokenizer.chat_template, markers = prepared_template(tokenizer, Model())
    assert markers == "its own"
    text = chat(tokenizer, ("user", QUESTION))
    assert text == f"[system] {SYSTEM_PROMPT}\n[user] Here is the question: {QUESTION}\n[assistant] <think>\n"


def test_no_template_and_no_markers_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(CurioError, match="neither a chat template nor the markers of ChatML or Llama 3"):
        prepared_template(tokenizer, Model())


def test_a_literal_is_read_back() -> None:
    from jinja2 import Environment

    text = "a'b\\c\nd\\n{{ e }}\"é"
    assert Environment().from_string(f"{{{{ {literal(text)} }}}}").render() == text


@pytest.mark.parametrize(("family", "end", "also"), [("qwen2", "<|im_end|>", "<|endoftext|>"), ("llama", "<|eot_id|>", "<|end_of_text|>")])  # fmt: skip
def test_stop_and_padding_tokens(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], family: str, end: str, also: str
) -> None:
    prepared = folders[family, True, False][1]
    tokenizer: Any = AutoTokenizer.from_pretrained(prepared)
    generation: Any = GenerationConfig.from_pretrained(prepared)
    assert tokenizer.convert_ids_to_tokens(generation.eos_token_id)[0] == end
    assert set(tokenizer.convert_ids_to_tokens(generation.eos_token_id)) == {end, also}
    assert tokenizer.convert_ids_to_tokens(end_token_id(tokenizer)) == end
    assert set(stop_token_ids(tokenizer, str(prepared))) == set(generation.eos_token_id)
    assert tokenizer.pad_token_id not in (None, end_token_id(tokenizer))
    assert json.loads((prepared / "config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id
    assert (generation.do_sample, generation.temperature, generation.top_p, generation.top_k) == (True, 0.6, 0.95, 0)
    assert tokenizer.model_max_length == 16384


def context(**model: Any) -> dict[str, Any]:
    return context_config(model, Config())[0]


def test_the_papers_context_follows_from_the_rule() -> None:
    """9216 tokens are needed: 4096 doubles to 16384, and 10000 times 4 is 40000 (Qwen2.5-Math-7B)."""
    old = context(max_position_embeddings=4096, rope_theta=10000, other=1)
    assert old == {"max_position_embeddings": 16384, "rope_theta": 40000.0, "other": 1}
    new = context(max_position_embeddings=4096, rope_parameters={"rope_theta": 10000, "rope_type": "default"})
    assert new["rope_parameters"] == {"rope_theta": 40000.0, "rope_type": "default"}
    long = {"max_position_embeddings": 131072, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3"}}
    assert context_config(long, Config()) == (long, [])


def test_settings_decide_before_the_rule() -> None:
    config = Config(model=Model(max_position_embeddings=12000, rope_theta=30000.0))
    changed, told = context_config({"max_position_embeddings": 4096, "rope_theta": 10000}, config)
    assert changed == {"max_position_embeddings": 12000, "rope_theta": 30000.0}
    assert [(change.before, change.after) for change in told] == [(4096, 12000), (10000.0, 30000.0)]


def test_a_scaled_rope_is_not_stretched_twice() -> None:
    with pytest.raises(CurioError, match=r"scaled already \(yarn\)"):
        context(max_position_embeddings=4096, rope_theta=1e4, rope_scaling={"type": "yarn", "factor": 4.0})


def test_the_check_names_every_defect_and_finds_none_after_preparing(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]],
) -> None:
    def problems(path: Path) -> set[str]:
        return {remark.about for remark in check_model(str(path), Config()) if remark.level == "problem"}

    qwen, llama = folders["qwen2", False, True], folders["llama", True, False]
    assert problems(qwen[0]) == {"context", "stop tokens"}
    assert problems(llama[0]) == {"context", "template", "padding token"}
    assert problems(qwen[1]) == problems(llama[1]) == set()
    notes = {remark.about: remark.says for remark in check_model(str(qwen[0]), Config()) if remark.level == "note"}
    assert "helpful assistant of some company" in notes["default system prompt"]


def spoiled(source: Path, folder: Path, file: str, **changes: Any) -> list[tuple[str, str]]:
    shutil.copytree(source, folder)
    values = {**json.loads((folder / file).read_text()), **changes}
    (folder / file).write_text(json.dumps(values))
    return [(remark.about, remark.says) for remark in check_model(str(folder), Config()) if remark.level == "problem"]


@pytest.mark.parametrize(
    ("file", "changes", "about", "says"),
    [
        ("config.json", {"auto_map": {"AutoModel": "x.Y"}}, "code", "brings Python code of its own"),
        ("config.json", {"max_position_embeddings": 9215}, "context", "holds 9215 tokens, needed are sft 9216"),
        ("config.json", {"use_sliding_window": True, "sliding_window": 4096}, "context", "last 4096 tokens only"),
        ("config.json", {"tie_word_embeddings": False}, "head", "no head is stored"),
        ("config.json", {"vocab_size": 500}, "vocabulary", "ids up to 511, the embedding 500 rows"),
        ("generation_config.json", {"eos_token_id": 0}, "stop tokens", "does not list"),
    ],
)
def test_one_defect_is_one_problem(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], tmp_path: Path, file: str, changes: dict[str, Any], about: str, says: str
) -> None:  # fmt: skip
    found = spoiled(folders["qwen2", True, False][1], tmp_path / "m", file, **changes)
    assert [name for name, _ in found] == [about]
    assert says in found[0][1]


def test_templates_that_fail_are_named(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], tmp_path: Path
) -> None:
    for template, says in (
        ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}", "no generation prompt"),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}", "no system role"),
    ):  # fmt: skip
        shutil.copytree(folders["qwen2", True, False][1], tmp_path / says[:4])
        (tmp_path / says[:4] / "chat_template.jinja").write_text(template)
        found = [r for r in check_model(str(tmp_path / says[:4]), Config()) if r.about == "template"]
        assert [(remark.level, says in remark.says) for remark in found[:1]] == [("problem", True)]


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def holds(name: str, content: bytes | None) -> Any:
    """A folder's file with other content, or a directory in its place."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)

    return spoil


STOPS, INDEX = "generation_config.json", "model.safetensors.index.json"
BROKEN_PARTS = [
    (holds("config.json", "{}".encode("utf-16")), "cannot read .*config.json"), (holds("config.json", b"["*100_000), "cannot read"),
    (holds("config.json", b'{"model_type": "nope"}'), "knows no model_type 'nope'"),
    (holds("config.json", b'{"model_type": "qwen2", "max_position_embeddings": "many"}'), "expected a whole number"),
    (holds(STOPS, b"\0"), "cannot read .*generation_config"), (holds(STOPS, b'{"a": "\xe9"}'), "cannot read"),
    (holds(STOPS, b"[]"), "holds a list"), (holds(STOPS, None), "is a folder, expected a file"), (holds(STOPS, b'{"eos_token_id": "x"}'), "expected token ids"),
    (holds("tokenizer.json", b"[]"), "cannot open a tokenizer"), (holds("tokenizer.json", b""), "cannot open a tokenizer"),
    (holds("tokenizer_config.json", b"[]"), "cannot open a tokenizer"), (holds("special_tokens_map.json", b"[]"), "cannot open a tokenizer"),
    (holds("chat_template.jinja", b"{% for %}"), "refuses"), (holds("chat_template.jinja", b"\xe9"), "cannot open a tokenizer"),
    (holds(INDEX, None), "not an index of shards"), (holds(INDEX, b'{"weight_map": {}}'), "lists no tensors"),
]  # fmt: skip


def refused_in_one_line(whole: Path, folder: Path, spoil: Any, says: str) -> None:
    """`prepare` of a spoiled copy of `whole` says one line and leaves nothing behind."""
    shutil.copytree(whole, folder / "model")
    spoil(folder / "model")
    with pytest.raises(CurioError, match=says) as caught:
        prepare_model(str(folder / "model"), folder / "out", Config(), QUIET)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["model"]


@pytest.mark.parametrize(("spoil", "says"), BROKEN_PARTS)
def test_a_broken_part_is_one_line_in_prepare_and_one_problem_in_check(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], tmp_path: Path, spoil: Any, says: str
) -> None:
    refused_in_one_line(folders["qwen2", True, False][0], tmp_path, spoil, says)
    found = [remark for remark in check_model(str(tmp_path / "model"), Config()) if re.search(says, remark.says)]
    assert [remark.level for remark in found] == ["problem"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, r"its header says"), (only_pickles, r"only pickled ones \(pytorch_model.bin\)"), (no_weights, "found none"),
        (no_header, "not a safetensors file"), (no_config, "has no config.json"), (broken_config, "cannot read"),
        (no_tokenizer, "has no vocabulary"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_one_line_and_leaves_nothing(
    folders: dict[tuple[str, bool, bool], tuple[Path, Path]], tmp_path: Path, spoil: Any, says: str
) -> None:
    refused_in_one_line(folders["qwen2", True, False][0], tmp_path, spoil, says)


def test_a_missing_shard_is_named(folders: dict[tuple[str, bool, bool], tuple[Path, Path]], tmp_path: Path) -> None:
    shutil.copytree(folders["llama", False, True][0], tmp_path / "model")
    next((tmp_path / "model").glob("model-00002*")).unlink()
    with pytest.raises(CurioError, match=r"lacks 1 of \d shards, e.g. model-00002"):
        prepare_model(str(tmp_path / "model"), tmp_path / "out", Config(), QUIET)


def test_the_card_says_what_was_changed(folders: dict[tuple[str, bool, bool], tuple[Path, Path]]) -> None:
    source, prepared = folders["llama", False, True]
    card = (prepared / "README.md").read_text()
    assert "| max_position_embeddings (tokens) | 64 | 16384 |" in card
    assert "| padding token | none | <\\|end_of_text\\|> |" in card
    assert "copied byte for byte" in card
    assert str(source.parent) not in card
    with safe_open(next(prepared.glob("*.safetensors")), "pt") as file:
        assert file.keys()
