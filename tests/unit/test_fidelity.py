"""What each recipe means under each fidelity: every key of the table of differences, written out from the sources."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from command import curiosft

from curiosft_cli.objectives.temperature import GUARDED, TemperatureSettings, solve_logits
from curiosft_cli.objectives.tokens import entropy
from curiosft_cli.run.config import flatten, load, recipe_names
from curiosft_cli.run.departures import departures
from curiosft_cli.run.differences import DIFFERENCES
from curiosft_cli.stages.sft import learning_rate

DEFAULT: dict[str, Any] = {
    "sft.teacher.student_weight": 0.99,
    "sft.teacher.search": "newton",
    "sft.teacher.iters": 20,
    "sft.teacher.clamp": "end",
    "sft.teacher.low_entropy_guard": 0.03,
    "sft.teacher.topk": 512,
    "sft.teacher.search_dtype": "float32",
    "sft.reduction": "token_mean",
    "sft.micro_batch_rows": 2,
    "sft.cosine_length": 1.0,
    "sft.warmup_start": None,
    "sft.learning_rate": 1e-5,
    "sft.warmup_steps": 60,
    "sft.min_lr_ratio": 1e-4,
    "sft.weight_decay": 0.01,
    "sft.adam_betas": [0.9, 0.999],
    "sft.batch_size": 256,
    "data.drop_last": False,
    "data.train": ["authors"],
    "model.end_token": "turn",
    "rl.objective": "grpo",
    "rl.mini_batch_prompts": 64,
    "rl.top_p": 0.95,
    "rl.epochs": None,
    "rl.importance_sampling": "auto",
    "rl.grader": "curiosft",
    "rl.reduction": "constant",
    "eval.top_p": 0.95,
    "eval.grader": "curiosft",
}
PAPER = {
    "sft.teacher.search": "bisect",
    "sft.teacher.iters": 15,
    "sft.teacher.clamp": "target",
    "sft.teacher.low_entropy_guard": None,
    "rl.importance_sampling": "off",
}
OFFICIAL = {
    "data.drop_last": True,
    "model.end_token": "tokenizer",
    "rl.top_p": 1.0,
    "rl.importance_sampling": "off",
    "eval.top_p": 1.0,
    "eval.grader": "official",
}
AUTHORS_SFT = {
    "sft.teacher.search": "bisect",
    "sft.teacher.search_dtype": "logits",
    "sft.reduction": "micro_token_mean",
    "sft.cosine_length": 4.0,
    "sft.warmup_start": 1e-4,
}
AUTHORS_RL = {
    "rl.objective": "curio_official",
    "rl.params.clip_high": 0.2,
    "rl.mini_batch_prompts": 32,
    "rl.epochs": 12,
    "rl.grader": "official",
}
SFT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # objective: (what it has by default, what its official run adds)
    **dict.fromkeys(("sft", "curio"), ({}, AUTHORS_SFT)),
    "entropy": ({"sft.params.entropy_coef": 0.06}, AUTHORS_SFT),
    "entropy_top": (
        {"sft.params.entropy_coef": 0.06, "sft.params.top_fraction": 0.2, "sft.params.denominator": "all"},
        AUTHORS_SFT,
    ),
    "kl": ({"sft.params.kl_kind": "reverse", "sft.params.kl_coef": 0.1}, AUTHORS_SFT),
    "gem": (
        {"sft.params.gem_h": "logsigmoid"},
        {
            "sft.learning_rate": 2e-5,
            "sft.warmup_steps": 16,
            "sft.warmup_start": 0.0,
            "sft.min_lr_ratio": 0.0,
            "sft.weight_decay": 0.0,
        },
    ),
    "dft": (
        {},
        {
            "sft.learning_rate": 5e-5,
            "sft.warmup_steps": 17,
            "sft.warmup_start": 0.0,
            "sft.min_lr_ratio": 0.0,
            "sft.adam_betas": [0.9, 0.95],
        },
    ),
    "psft": (
        {},
        {
            "sft.learning_rate": 1e-6,
            "sft.warmup_steps": 10,
            "sft.warmup_start": 0.0,
            "sft.min_lr_ratio": 1.0,
            "sft.weight_decay": 0.1,
            "sft.batch_size": 8,
        },
    ),
}
CLIP = {"rl.params.clip_low": 0.2, "rl.params.clip_high": 0.28}
NO_CLIP = {"rl.params.clip_low": None, "rl.params.clip_high": None}
SCRIPT = {"rl.params.script_gpus": 8, "rl.params.script_tokens": 32768}
RL: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # objective: (by default, what the paper's reading adds, what the method's own script adds)
    "grpo": (CLIP, {}, AUTHORS_RL),
    "luffy": (NO_CLIP | SCRIPT, CLIP, {}),
    "rl_plus": (NO_CLIP | SCRIPT, CLIP, {}),
    "prefix_rft": (CLIP | SCRIPT, {}, {"rl.params.clip_high": 0.2}),
    "hpt": (SCRIPT | {"rl.learning_rate": 5e-6, "rl.skip_grad_norm": 80.0, "rl.top_p": 1.0}, {"rl.top_p": 1.0}, {}),
}
RECIPES = {
    # recipe: (sft.objective, rl.objective); a stage that the recipe does not run has the default's
    **{name: ("curio", "grpo") for name in ("curio", "curio-fixed-tau", "curio-self", "curio-rl", "grpo")},
    **{name: ("curio", "grpo") for name in ("curio-rl-qwen3", "curio-rl-llama")},
    **{name: ("curio", "grpo") for name in ("qwen2.5-math-7b", "qwen3-4b-base", "llama-3.1-8b-instruct")},
    **{name: ("sft", "grpo") for name in ("sft", "sft-rl", "sft-rl-qwen3", "sft-rl-llama")},
    **{"sft-entropy": ("entropy", "grpo"), "sft-entropy-top20": ("entropy_top", "grpo"), "sft-kl": ("kl", "grpo")},
    **{"gem": ("gem", "grpo"), "gem-rl": ("gem", "grpo"), "dft": ("dft", "grpo"), "dft-rl": ("dft", "grpo")},
    **{"psft": ("psft", "grpo"), "psft-rl": ("psft", "grpo")},
    **{"luffy": ("curio", "luffy"), "rl-plus": ("curio", "rl_plus")},
    **{"prefix-rft": ("curio", "prefix_rft"), "hpt": ("curio", "hpt")},
}
ELSEWHERE = {"quickstart", "curio-official", "authors"}
"""Recipes that say themselves what a fidelity or a test below says."""


def expected(recipe: str, fidelity: str) -> dict[str, Any]:
    sft, rl = RECIPES[recipe]
    values = DEFAULT | {"rl.objective": rl} | SFT[sft][0] | RL[rl][0]
    if fidelity == "paper":
        return values | PAPER | RL[rl][1]
    if fidelity == "official":
        return values | OFFICIAL | SFT[sft][1] | RL[rl][2]
    return values


def resolved(recipe: str, *overrides: str) -> dict[str, Any]:
    return dict(flatten(load(recipe, overrides).config.model_dump(mode="json")))


@pytest.mark.parametrize("fidelity", ["default", "paper", "official"])
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_key_of_the_table(recipe: str, fidelity: str) -> None:
    found = resolved(recipe, f"run.fidelity={fidelity}")
    want = expected(recipe, fidelity)
    assert {key: found[key] for key in want} == want


def test_no_recipe_and_no_key_is_forgotten() -> None:
    """A key that the table names is in the expectations, for an objective that has it."""
    expectations = set().union(*(expected(recipe, "default") for recipe in RECIPES))
    named = {key for row in DIFFERENCES for key in row.keys.split(", ") if key != "-"}
    assert {key for key in named if not any(f"{want}.".startswith(f"{key}.") for want in expectations)} == set()
    assert {name for name in recipe_names() if name in RECIPES} == set(RECIPES)


def test_the_authors_run_is_one_word() -> None:
    """The recipe curio-official, and curio-rl with run.fidelity=official, are the same run of both stages."""
    one, other = resolved("curio-official"), resolved("curio-rl", "run.fidelity=official")
    assert {key for key in one if one[key] != other[key]} == {"run.name"}
    assert (one["rl.init"], one["rl.objective"]) == ("sft", "curio_official")


def test_what_a_user_names_stays() -> None:
    official = "run.fidelity=official"
    assert resolved("curio-rl", official, "rl.objective=grpo")["rl.objective"] == "grpo"
    assert resolved("curio-rl", official, "rl.steps=9")["rl.epochs"] is None
    assert resolved("quickstart", official)["rl.epochs"] is None
    assert resolved("curio-rl", official, "rl.epochs=2")["rl.epochs"] == 2


def test_every_rate_of_the_authors_run() -> None:
    """534 steps of their schedule: 60 of warm-up from 1e-4 of the peak, then a cosine over 4 x 534 steps.

    m + (1 - m) k / 60, then m + (1 - m) (1 + cos(pi (k - 60) / 2076)) / 2, with m = 1e-4.
    """
    sft = load("curio", ["run.fidelity=official"]).config.sft
    peak, m = 1e-5, 1e-4
    for step in range(534):
        share = step / 60 if step < 60 else (1 + math.cos(math.pi * (step - 60) / 2076)) / 2
        assert learning_rate(sft, step, 534) == pytest.approx(peak * (m + (1 - m) * share), rel=1e-12), step
    ours = load("curio").config.sft
    assert learning_rate(sft, 0, 534) == pytest.approx(1e-9)
    assert learning_rate(sft, 533, 534) == pytest.approx(8.77e-6, rel=1e-3)
    assert learning_rate(ours, 533, 534) == pytest.approx(1.11e-9, rel=1e-2)
    totals = [sum(learning_rate(settings, step, 534) for step in range(534)) for settings in (sft, ours)]
    assert totals[0] / totals[1] == pytest.approx(1.81, abs=0.01)


def under_autocast(logits: torch.Tensor) -> torch.Tensor:
    """The authors' search under autocast, step by step: bfloat16 logits, quotients and temperatures."""

    def entropy_at(tau: torch.Tensor) -> torch.Tensor:
        logp = (logits.topk(512).values / tau).float().log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    low, high = (torch.full((len(logits), 1), tau, dtype=logits.dtype) for tau in (1.1, 1.5))
    start = entropy_at(torch.ones_like(low))
    target = start + 0.5 * torch.sigmoid(2.0 * (start - 1.2))
    cold, hot = target <= entropy_at(low), target >= entropy_at(high)
    tau = torch.where(cold[:, None], low, torch.where(hot[:, None], high, (low + high) / 2))
    for _ in range(20):
        warmer = (entropy_at(tau) < target)[:, None]
        low, high = torch.where(warmer, tau, low), torch.where(warmer, high, tau)
        tau = (low + high) / 2
    tau = tau.squeeze(-1).float()
    return tau.masked_fill(entropy(logits) <= 0.03, float(torch.tensor(1.1, dtype=logits.dtype)))


def test_the_official_search_is_that_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(300, 1, generator=generator) * 9 + 0.5
    logits = (torch.randn(300, 2000, generator=generator) * scale + 20.0).bfloat16()
    teacher = load("curio", ["run.fidelity=official"]).config.sft.teacher
    found = solve_logits(
        logits, TemperatureSettings(**teacher.model_dump(include=set(TemperatureSettings.model_fields)))
    )
    assert (found.status == GUARDED).any()
    # The authors clamp by the entropy at the ends and then keep halving; both end at the same temperature.
    torch.testing.assert_close(found.tau, under_autocast(logits), rtol=0, atol=0)


# ---- where a configuration departs -------------------------------------------------------------------------------


def numbers(recipe: str, column: Any, *overrides: str) -> list[str]:
    return [row.number for row in departures(load(recipe, overrides).config, column)]


def test_a_configuration_is_shown_only_its_own_departures() -> None:
    assert numbers("curio", "paper") == ["D2", "D3", "D4", "D6"]
    assert numbers("curio", "official") == ["D2", "D7", "D8", "D12", "D17", "D18", "D19", "D28"]
    assert numbers("curio-official", "official") == []
    assert numbers("luffy", "official") == ["D12", "D19", "D20", "D23", "D28"]
    assert numbers("luffy", "paper", "run.fidelity=paper") == []
    assert numbers("grpo", "paper", "rl.top_p=1.0") == ["D11", "D20"]
    assert "D9" in numbers("curio-official", "paper")


def test_the_command_shows_the_values_of_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "grpo"\n[rl]\nimportance_sampling = "off"\n', encoding="utf-8")
    printed = curiosft("config", "explain-differences", file, "rl.top_p=0.5")
    assert printed.returncode == 0
    assert "rl.top_p = 0.5" in printed.stdout and "D15" not in printed.stdout
    found = json.loads(curiosft("config", "explain-differences", "hpt", "--json").stdout)
    assert [row["number"] for row in found["paper"]] == ["D20", "D23"]
