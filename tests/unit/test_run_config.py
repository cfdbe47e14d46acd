"""Configuration: precedence, origins, and messages that a user can act on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.run.config import differing, flatten, from_json, load, parse_overrides, recipe_names
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Config


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid(name: str) -> None:
    assert load(name).config.run.name == name


def test_defaults_are_the_papers() -> None:
    """Tables 5 and 6, Section 5."""
    config = Config()
    sft, rl, teacher = config.sft, config.rl, config.sft.teacher
    assert (sft.epochs, sft.batch_size, sft.max_response_length, sft.learning_rate, sft.warmup_steps) == (
        3,
        256,
        8192,
        1e-5,
        60,
    )
    assert (rl.steps, rl.prompts_per_step, rl.mini_batch_prompts, rl.learning_rate) == (500, 128, 64, 1e-6)
    assert (rl.num_generations, rl.temperature, rl.top_p) == (8, 1.0, 0.95)
    assert (teacher.h_pivot, teacher.gamma, teacher.delta_max) == (1.2, 2.0, 0.5)
    assert (teacher.tau_min, teacher.tau_max, teacher.topk) == (1.1, 1.5, 512)
    assert (teacher.sync_every, teacher.student_weight) == (5, 0.99)


def test_command_line_beats_file_beats_fidelity_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[run]\nfidelity = "official"\n[rl]\ntop_p = 0.5\n')
    resolved = load(str(file), ["rl.temperature=0.9"])
    assert resolved.config.rl.top_p == 0.5  # the file, over fidelity's 1.0
    assert resolved.config.rl.mini_batch_prompts == 32  # fidelity
    assert resolved.config.rl.temperature == 0.9
    origins = resolved.origins
    assert origins["rl.top_p"] == str(file)
    assert origins["rl.mini_batch_prompts"] == "fidelity"
    assert origins["rl.temperature"] == "command line"
    assert origins["rl.steps"] == "default"


def test_the_objectives_own_defaults_are_written_down() -> None:
    assert load("curio").config.sft.params == {"alpha": 1.0}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.learning_rat=1e-5", "did you mean 'learning_rate'?"),
        ("sft.teacher.h_pivto=1.0", "did you mean 'h_pivot'?"),
        ("sft.learning_rate=-1", "sft.learning_rate = -1"),
        ("sft.objective=curios", "did you mean 'curio'?"),
        ("sft.params.alhpa=2", "did you mean 'alpha'?"),
        ("sft.params.alpha=high", "sft.params.alpha = 'high'"),
        ("sft.teacher.tau_min=2.0", "tau_max"),
        ("sft.teacher.search_dtype=logits", "Set sft.teacher.search=bisect"),
        ("rl.mini_batch_prompts=7", "not a multiple"),
        ("sft.eval_steps=5", "Set data.validation or sft.eval_benchmarks too"),
        ("rl.eval_steps=5", "Set rl.eval_benchmarks too"),
        ("learning_rate", "section.key=value"),
    ],
)
def test_a_bad_setting_is_one_helpful_line(override: str, said: str) -> None:
    with pytest.raises(CurioError) as caught:
        load("curio", [override])
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_a_teacher_set_by_hand_needs_an_objective_that_asks_it() -> None:
    """What a recipe says of its teacher may lie idle under another objective; a value on the command line may not."""
    with pytest.raises(CurioError, match=r"sft\.teacher\.h_pivot is not read by sft\.objective = 'gem'"):
        load("gem", ["sft.teacher.h_pivot=1.0"])
    assert load("curio-self", ["sft.objective=gem"]).config.sft.teacher.kind == "self"
    assert load("curio-distribution", ["sft.teacher.h_pivot=1.0"]).config.sft.teacher.h_pivot == 1.0
    with pytest.raises(CurioError, match=r"kind = 'self' has no temperatures.*Set sft\.teacher\.kind=ema"):
        load("curio-self", ["sft.objective=curio_distribution"])


def test_a_file_inherits_and_origins_name_each_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('extends = "curio"\n[sft]\nepochs = 2\nlearning_rate = 3e-6\n')
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "lab.toml"\nrun.name = "mine"\n[sft]\nepochs = 4\n')
    resolved = load(str(mine), ["sft.warmup_steps=1"])
    sft, origins = resolved.config.sft, resolved.origins
    assert (sft.epochs, sft.learning_rate, sft.objective, resolved.config.run.name) == (4, 3e-6, "curio", "mine")
    assert origins["sft.epochs"] == str(mine)
    assert origins["sft.learning_rate"] == str(tmp_path / "lab.toml")
    assert origins["sft.objective"] == "curio"
    assert origins["model.path"] == "qwen2.5-math-7b"
    assert origins["sft.warmup_steps"] == "command line"
    assert resolved.source == mine.read_text()


def test_another_model_in_an_inheriting_file_drops_the_context(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "curio"\n[model]\npath = "Qwen/Qwen3-4B-Base"\n')
    resolved = load(str(mine))
    assert resolved.config.model.rope_theta is None
    assert resolved.origins["model.rope_theta"] == "default"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("mine.toml", "extends itself"),
        ("other.toml", "extends itself"),
        ("gone.toml", "gone.toml"),
        ("curoi", "did you mean 'curio'"),
        ("lab", "is neither a TOML file nor a recipe"),
    ],
)
def test_a_base_that_cannot_be_is_one_clear_line(tmp_path: Path, base: str, said: str) -> None:
    (tmp_path / "other.toml").write_text('extends = "mine.toml"\n')
    (tmp_path / "mine.toml").write_text(f'extends = "{base}"\n')
    with pytest.raises(CurioError) as caught:
        load(str(tmp_path / "mine.toml"))
    assert said in str(caught.value) and "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_only_one_base(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = ["curio", "gem"]\n')
    with pytest.raises(CurioError, match="is not text"):
        load(str(tmp_path / "mine.toml"))


def test_a_reduction_that_the_method_does_not_read_is_refused() -> None:
    with pytest.raises(CurioError, match="script_gpus=none"):
        load("luffy", ["rl.reduction=token_mean"])
    textbook = load("luffy", ["rl.reduction=token_mean", "rl.params.script_gpus=none"]).config.rl
    assert (textbook.reduction, textbook.params["script_gpus"]) == ("token_mean", None)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(CurioError, match="did you mean 'curio'"):
        load("curoi")


def test_toml_that_does_not_parse_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[sft]\nepochs = = 3\n")
    with pytest.raises(CurioError, match="line 2"):
        load(str(file))


def test_none_switches_a_value_off() -> None:
    assert load("curio", ["sft.teacher.low_entropy_guard=none"]).config.sft.teacher.low_entropy_guard is None


def test_one_name_needs_no_brackets() -> None:
    assert load("curio", ["data.train=a.jsonl"]).config.data.train == ("a.jsonl",)
    assert load("curio", ['data.train=["a.jsonl", "b.jsonl"]']).config.data.train == ("a.jsonl", "b.jsonl")


def test_a_saved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load("curio", ["sft.epochs=5"]).config
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    assert from_json(file) == config


def test_differing_names_old_and_new() -> None:
    old, new = load("curio").config, load("curio", ["sft.epochs=5", "rl.steps=9"]).config
    assert differing(old, new, ["sft"]) == ["sft.epochs: 3 -> 5"]


@given(st.text(alphabet="abcdefgh_", min_size=1), st.integers() | st.booleans())
def test_an_override_reaches_its_leaf(key: str, value: int | bool) -> None:
    tree = parse_overrides([f"a.{key}={json.dumps(value)}"])
    assert dict(flatten(tree)) == {f"a.{key}": value}


def test_a_recipes_context_belongs_to_its_own_model() -> None:
    own = load("curio").config.model
    assert (own.max_position_embeddings, own.rope_theta) == (16384, 40000.0)
    other = load("curio", ["model.path=Qwen/Qwen3-4B-Base"]).config.model
    assert (other.max_position_embeddings, other.rope_theta) == (None, None)
    given = load("curio", ["model.path=Qwen/Qwen3-4B-Base", "model.rope_theta=1e6"]).config.model
    assert given.rope_theta == 1e6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["sft.best_by=heldout_loss"], "sft.best_by = heldout_loss has no held-out rows. Set data.validation too"),
        (["rl.best_by=heldout_loss", "data.validation=x.jsonl"], "rl evaluates no held-out rows"),
        (["sft.best_by=pass@k"], "sft.best_by = pass@k has no benchmark"),
        (["sft.best_by=loss"], "sft.best_by = 'loss' is not legal"),
    ],
)
def test_the_best_is_chosen_by_something_that_is_evaluated(settings: list[str], said: str) -> None:
    with pytest.raises(CurioError, match=re.escape(said)):
        load("sft", settings)
