"""Every golden case: expected numbers of independent implementations, through our objectives and through the head.

`CURIOSFT_GOLDENS` names another folder of the same format (`manifest.json` and its safetensors files), or a folder of
such folders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from split_advantage import split_advantage
from torch import Tensor

from curiosft_cli.objectives import (
    RL_OBJECTIVES,
    SFT_OBJECTIVES,
    BoundObjective,
    TokenRows,
    baselines,
    groups,
    newer,
    objective_parameters,
)
from curiosft_cli.objectives.curio import mix, sync_due, token_weight
from curiosft_cli.objectives.grpo import group_advantage
from curiosft_cli.objectives.reduction import Totals
from curiosft_cli.objectives.reduction import term_weights as weigh
from curiosft_cli.objectives.temperature import TemperatureSettings, solve_logits
from curiosft_cli.objectives.tokens import Divisor, entropy, label_logp, tempered_logp, top_k_entropy
from curiosft_cli.train.head.fused import fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import head_logp, teacher_logp

GOLDENS = Path(os.environ.get("CURIOSFT_GOLDENS", Path(__file__).parents[1] / "goldens"))
MANIFESTS = {
    path.parent: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDENS.rglob("manifest.json"))
}
FILES = {
    folder: {name: load_file(folder / name) for name in manifest["files"]} for folder, manifest in MANIFESTS.items()
}
CASES = [case | {"folder": folder} for folder, manifest in MANIFESTS.items() for case in manifest["cases"]]

NAMES = {
    "ce": "sft",
    "sft_entropy": "entropy",
    "sft_entropy_top": "entropy_top",
    "sft_kl": "kl",
    "gem": "gem",
    "dft": "dft",
    "psft": "psft",
    "curio": "curio",
    "grpo": "grpo",
    "curio_official_rl": "curio_official",
    "luffy": "luffy",
    "rlplus": "rl_plus",
    "prefix_rft": "prefix_rft",
    "hpt": "hpt",
    "eaft": "eaft",
    "asft": "asft",
    "sed_sft": "sed_sft",
    "deft": "deft",
}
WORDINGS = {
    "all response tokens": "all",
    "selected tokens": "selected",
    "full-vocabulary KL(pi_theta || pi_base)": "reverse",
    "full-vocabulary KL(pi_base || pi_theta)": "forward",
    "k3 estimator on the expert token": "k3",
    "token_mean": "token_mean",
    "micro_token_mean": "micro_token_mean",
    "seq_mean_token_mean": "seq_mean_token_mean",
    "constant: sum over tokens / (rows with at least one token * L)": "constant",
    "sum over tokens / L (no division by rows)": "constant of each row",
    "sum over on-policy tokens / L": "constant of each row",
    "token_mean over expert rows": "expert",
    "mean 0, std 1": "upstream",
    "separate": "ema",
    "self (student logits, detached)": "self",
    "none (off-policy ratio = p)": None,
    "counted tokens of the batch": "token_mean",
}
PARAMETERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "h": lambda value: {"gem_h": value},
    "kl_kind": lambda value: {"kl_kind": WORDINGS[value]},
    "denominator": lambda value: {"denominator": WORDINGS[value]},
    "ratio_lower": lambda value: {"clip_low": 1.0 - value},
    "ratio_upper": lambda value: {"clip_high": value - 1.0},
    "on_policy_clip": lambda value: dict(zip(("clip_low", "clip_high"), value or (None, None), strict=True)),
    "shaping": lambda value: {"shaping_gamma": None} if WORDINGS.get(value, value) is None else {},
    "top_k": lambda value: {"topk": value},
}
ALWAYS = {("asft", "kl_kind"): "forward", ("deft", "floor_over"): "token_mean"}
"""Hyper-parameters that an objective has one value of."""
NOT_PARAMETERS = {*TemperatureSettings.model_fields, "reduction", "rl_reduction", "sft_reduction", "L"} | {
    "micro_batch_size",
    "teacher",
    "advantage",
    "is_ratio",
    "uses",
    "log_epsilon",  # added to p inside a logarithm: below what the cases allow
}
NOT_COVERED = {
    "adv_dr_grpo_prefix_v2",  # the authors' variant whose prefix advantage ignores the outcome: not offered
}

Case = Mapping[str, Any]
Got = dict[str, Tensor]


def test_golden_every_objective_has_a_handler() -> None:
    assert {case["objective"] for case in CASES} <= set(NAMES) | set(PIECES)


def of(kind: Callable[[Case], bool]) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in CASES if kind(case)]


def is_fused(case: Case) -> bool:
    return "uses" in case["hyper"]


def tensors_of(case: Case) -> Got:
    """The case's inputs, its expected values under the name `want NAME`, and its shared inputs, upcast."""
    source, manifest, files = case.get("shared_inputs"), MANIFESTS[case["folder"]], FILES[case["folder"]]
    found = {}
    if source:
        names = manifest["shared_inputs"][source["case"]]
        found |= {name: files[source["file"]][f"{source['case']}.{name}"] for name in names}
    if is_fused(case):
        shared = manifest["fused_shared"]
        found |= {name: files[shared["file"]][shared["prefix"] + name] for name in shared["tensors"]}
    for name in case["inputs"]:
        found[name] = files[case["file"]][f"{case['id']}.{name}"]
    for name in case["expected"]:
        found[f"want {name}"] = files[case["file"]][f"{case['id']}.{name}"]
    return {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in found.items()}


def mask_of(tensors: Got) -> Tensor | None:
    mask = tensors.get("mask", tensors.get("response_mask"))
    return None if mask is None else mask.bool()


def precisions(kind: Callable[[Case], bool]) -> list[Any]:
    """The cases with the dtypes of the head's products that give their logits exactly: bfloat16 too where they are."""
    found = [(case, dtype) for case in CASES if kind(case) for dtype in (torch.float32, torch.bfloat16)]
    return [
        pytest.param(case, dtype, id=f"{case['id']}-{dtype}".replace("torch.", ""))
        for case, dtype in found
        if dtype == torch.float32
        or MANIFESTS[case["folder"]]["shared_inputs"][case["shared_inputs"]["case"]]["logits"]["dtype"] == "bfloat16"
    ]


def compare(case: Case, tensors: Got, got: Got, products: torch.dtype = torch.float32) -> None:
    """Every expected tensor is there and within the case's tolerance; per-token values where tokens count.

    Gradients are products: in bfloat16 they have its 8 bits.
    """
    assert set(case["expected"]) - NOT_COVERED - {"stable"} <= set(got)
    mask = mask_of(tensors)
    for name in set(case["expected"]) - NOT_COVERED - {"stable"}:
        value, want = got[name].double(), tensors[f"want {name}"].double()
        assert value.shape == want.shape, name
        if name == "tau" and "want stable" in tensors:
            stable = tensors["want stable"].bool()
            value, want = value[stable], want[stable]
        elif mask is not None and not name.startswith("grad") and want.shape == mask.shape:
            value, want = value[mask], want[mask]
        rounded = name.startswith("grad") and products == torch.bfloat16
        tolerance: Any = {"rtol": 2**-7, "atol": 1e-6} if rounded else case["tolerance"]
        torch.testing.assert_close(value, want, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def objective_of(case: Case) -> BoundObjective:
    name = NAMES[case["objective"]]
    objective = (SFT_OBJECTIVES | RL_OBJECTIVES)[name]
    legal, params = objective_parameters(objective), {}
    for key, value in case["hyper"].items():
        if (name, key) in ALWAYS:
            assert WORDINGS[value] == ALWAYS[name, key]
        elif key in PARAMETERS:
            translated = PARAMETERS[key](value)
            assert value is None or set(translated) <= set(legal), f"{name} has no parameter for {key} = {value}"
            params |= {ours: chosen for ours, chosen in translated.items() if ours in legal}
        elif key in legal:
            params[key] = value
        else:
            assert key in NOT_PARAMETERS, f"{key} is neither a parameter nor known to be something else"
    if "entropy_coef" in legal and name in RL_OBJECTIVES:
        params["entropy_coef"] = 0.0  # the cases hold the policy loss alone
    if "script_gpus" in legal:
        worded = WORDINGS[case["hyper"].get("reduction") or case["hyper"]["rl_reduction"]] or ""
        params["script_gpus"] = 1 if worded.endswith("of each row") else None  # one micro-batch of one GPU
    return objective.bind(**params)


def term_weights(case: Case, mask: Tensor, extra: Got, terms: tuple[Divisor, ...]) -> list[Tensor]:
    """One [N] weight per term, its reduction divided, for the counted tokens of `mask` [B, T].

    "of each row": sums over one-row micro-batches, so each row is an update of its own for the configured reduction.
    """
    hyper = case["hyper"]
    worded = WORDINGS[hyper.get("reduction") or hyper.get("rl_reduction") or "token_mean"]
    assert worded is not None
    name = worded.removesuffix(" of each row")
    sequence = torch.arange(len(mask))[:, None].expand(mask.shape)[mask]
    size = hyper.get("micro_batch_size", len(mask))
    masks = {name: extra[name].bool() for name in ("selected", "expert") if name in extra}
    totals = Totals(
        tokens=int(mask.sum()),
        sequences=int(mask.any(1).sum()),
        micro_batches=[int(part.sum()) for part in mask.split(size)],
        micro_rows=size,
        max_length=hyper.get("L", 1),
        masks={name: int(marked.sum()) for name, marked in masks.items()},
        mask_sequences={name: len(sequence[marked].unique()) for name, marked in masks.items()},
        all_tokens=int(mask.sum()),
    )
    if name != worded and terms == ("reduction",):
        rows = [replace(totals, tokens=int(row.sum()), sequences=1) for row in mask]
        return [torch.cat([weigh("reduction", name, sequence[sequence == at], row) for at, row in enumerate(rows)])]
    return [weigh(term, name, sequence, totals) for term in terms]


def settings_of(case: Case, **change: Any) -> TemperatureSettings:
    known = TemperatureSettings.model_fields
    return TemperatureSettings(**{key: case["hyper"][key] for key in known if key in case["hyper"]} | change)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Rows [N, ...] put back at the counted positions of `mask`, 0 elsewhere."""
    full = values.new_zeros(*mask.shape, *values.shape[1:])
    full[mask] = values
    return full


# ---- objectives of the supervised stage, on logits --------------------------------------------------------


def reference_tensors(case: Case, tensors: Got, mask: Tensor) -> tuple[Got, TemperatureSettings | None]:
    """What the objective needs in `extra`, by the plain functions on full logits; the settings of a self-teacher."""
    extra: Got = {}
    labels = tensors["labels"][mask]
    if case["objective"] == "curio":
        own = WORDINGS[case["hyper"]["teacher"]] == "self"
        logits = tensors["logits" if own else "teacher_logits"][mask]
        settings = settings_of(case, search="bisect" if "iters" in case["hyper"] else "newton")
        extra["tau"] = solve_logits(logits, settings).tau
        extra["teacher_logp"] = tempered_logp(logits, extra["tau"]).gather(-1, labels[:, None]).squeeze(-1)
        return extra, settings if own else None
    if case["objective"] == "sft_kl":
        extra["ref_logp"] = label_logp(tensors["base_logits"][mask], labels)
    if case["objective"] == "sft_entropy_top":
        extra["selected"] = baselines.select_top(
            entropy(tensors["logits"][mask]), top_fraction=case["hyper"]["top_fraction"]
        )
    if case["objective"] == "deft":
        objective = objective_of(case)
        extra["focus_floor"] = objective.filled(newer.cayley_floor)(label_logp(tensors["logits"][mask], labels))
    return extra, None


def reported(stats: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What an objective reports, by its name in the expected tensors."""
    names = {"kl": "kl", "selected": "selected", "focus": "focus", "token_weight": "grad_weight"}
    return {
        wanted: stats[name] for name, wanted in (names | {"entropy_topk_nats": "entropy_topk"}).items() if name in stats
    }


@pytest.mark.parametrize("case", of(lambda case: "shared_inputs" in case and case["objective"] in NAMES))
def test_golden_supervised_by_autograd(case: Case) -> None:
    tensors = tensors_of(case)
    mask, objective = tensors["mask"].bool(), objective_of(case)
    extra, _ = reference_tensors(case, tensors, mask)
    logits = tensors["logits"][mask].requires_grad_()
    labels, base = tensors["labels"][mask], tensors.get("base_logits")
    # As the head does: a logsumexp of logits near 10,000 is rounded to 0.001.
    logp = label_logp(logits - logits.detach().amax(-1, keepdim=True), labels)
    rows = TokenRows(logp, labels, extra, entropy(logits), logits, None if base is None else base[mask])
    out = objective.fn(rows)
    weights = term_weights(case, mask, extra, objective.terms)
    loss = sum((term * weight).sum() for term, weight in zip(out.terms, weights, strict=True))
    assert isinstance(loss, Tensor)
    (grad,) = torch.autograd.grad(loss, logits)
    got = {
        "log_prob": rows.logp.detach(),
        "entropy": rows.entropy.detach() if rows.entropy is not None else None,
        "token_weight": token_weight(rows.logp, extra["teacher_logp"], objective.params["alpha"])
        if "teacher_logp" in extra
        else out.stats.get("token_weight"),
        "teacher_log_prob": extra.get("teacher_logp"),
        "tau": extra.get("tau"),
        "selected": extra.get("selected"),
        "grad_logits": grad,
        **reported(out.stats),
    }
    full = {name: spread(value, mask) for name, value in got.items() if value is not None}
    compare(case, tensors, {**full, "loss": loss.detach()})


@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize(
    ("case", "dtype"), precisions(lambda case: "shared_inputs" in case and case["objective"] in NAMES)
)
def test_golden_supervised_through_the_head(case: Case, dtype: torch.dtype, chunk: int | None) -> None:
    """The head with an identity for its weight, so that its hidden states are the logits."""
    tensors = tensors_of(case)
    mask, objective = tensors["mask"].bool(), objective_of(case)
    extra, self_settings = reference_tensors(case, tensors, mask)
    hidden = tensors["logits"][mask].requires_grad_()
    identity, labels = torch.eye(hidden.shape[1]), tensors["labels"][mask]
    walk: dict[str, Any] = {"chunk": chunk or len(labels), "compute_dtype": dtype}
    got: dict[str, Tensor | None] = {}
    if case["objective"] == "curio" and self_settings is None:
        rows = teacher_logp(tensors["teacher_logits"][mask], identity, labels, settings_of(case), **walk)
        extra["teacher_logp"], got["tau"] = rows.logp, rows.tau
    reference = (tensors["base_logits"][mask], identity) if "ref_logits" in objective.needs else None
    loss, seen = fused_head(
        hidden,
        identity,
        labels,
        objective,
        extra={name: extra[name] for name in objective.needs & set(extra)},
        weights=term_weights(case, mask, extra, objective.terms),
        head_pass=HeadPass(entropy=True, self_teacher=self_settings, reference=reference),
        **walk,
    )
    loss.backward()
    scored = head_logp(hidden, identity, labels, head_pass=HeadPass(entropy=True), **walk)
    torch.testing.assert_close(scored.logp, seen.logp)
    # Both subtract two numbers of the logits' size, so that is what rounding is relative to.
    rounding = 2e-6 * float(hidden.detach().abs().max()) + 1e-6
    torch.testing.assert_close(scored.entropy, seen.entropy, rtol=0, atol=rounding)
    if seen.teacher is not None:
        extra["teacher_logp"], got["tau"] = seen.teacher.logp, seen.teacher.tau
    got |= {
        "log_prob": seen.logp,
        "entropy": seen.entropy,
        "token_weight": seen.stats.get("token_weight"),
        "teacher_log_prob": extra.get("teacher_logp"),
        "selected": extra.get("selected"),
        "grad_logits": hidden.grad,
        **reported(seen.stats),
    }
    full = {name: spread(value, mask) for name, value in got.items() if value is not None}
    compare(case, tensors, {**full, "loss": loss.detach()}, dtype)


@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("case", of(is_fused))
def test_golden_fused_linear(case: Case, chunk: int | None) -> None:
    tensors = tensors_of(case)
    mask, objective = tensors["mask"].bool(), objective_of(case)
    hidden, weight = (tensors[name].clone().requires_grad_() for name in ("hidden", "weight"))
    rows, size = int(mask.sum()), chunk or len(mask)
    extra: Got = {}
    if "teacher_logp" in objective.needs:
        teacher = tensors["teacher_hidden"][mask], tensors["teacher_weight"]
        extra["teacher_logp"] = teacher_logp(*teacher, tensors["labels"][mask], settings_of(case), chunk=size).logp
    if "old_logp" in objective.needs:
        extra["old_logp"] = tensors["old_log_prob"][mask]
    wide = "ref_logits" in objective.needs
    loss, _ = fused_head(
        hidden[mask],
        weight,
        tensors["labels"][mask],
        objective,
        extra=extra,
        weights=torch.full((rows,), 1.0 / rows),
        chunk=size,
        head_pass=HeadPass(reference=(tensors["base_hidden"][mask], tensors["base_weight"]) if wide else None),
    )
    loss.backward()
    assert hidden.grad is not None and weight.grad is not None
    compare(case, tensors, {"loss": loss.detach(), "grad_hidden": hidden.grad, "grad_weight": weight.grad})


# ---- objectives of log-probabilities: PSFT and the reinforcement stage --------------------------------------


@pytest.mark.parametrize("case", of(lambda case: "log_prob" in case["inputs"]))
def test_golden_of_log_probabilities(case: Case) -> None:
    tensors = tensors_of(case)
    mask, objective = mask_of(tensors), objective_of(case)
    assert mask is not None
    names = {"old_log_prob": "old_logp", "advantages": "advantage", "prefix_mask": "expert"}
    extra = {ours: tensors[name][mask] for name, ours in names.items() if name in tensors}
    logp = tensors["log_prob"][mask].requires_grad_()
    rows = TokenRows(logp, torch.zeros_like(logp, dtype=torch.int64), extra)
    weights = term_weights(case, mask, extra, objective.terms)
    loss = sum((term * weight).sum() for term, weight in zip(objective.fn(rows).terms, weights, strict=True))
    assert isinstance(loss, Tensor)
    (grad,) = torch.autograd.grad(loss, logp)
    got = {"loss": loss.detach(), "grad_log_prob": spread(grad, mask)}
    if case["objective"] == "prefix_rft":
        got |= prefix_advantages(case, tensors, mask)
    compare(case, tensors, got)


def prefix_advantages(case: Case, tensors: Got, mask: Tensor) -> Got:
    """The advantages of a Prefix-RFT case per token, before and after the entropy filter."""
    prefix = tensors["prefix_mask"].bool()
    per_token = {}
    for name, use_std in (("adv_dr_grpo_prefix", False), ("adv_grpo_prefix", True)):
        sampled, given = groups.prefix_advantage(
            tensors["rewards"], tensors["group"], tensors["is_prefixed"], use_std=use_std
        )
        per_token[name] = given[:, None].where(prefix, sampled[:, None]) * mask
    keep = groups.keep_prefix(
        tensors["entropy"][mask], prefix[mask], prefix_keep_fraction=case["hyper"]["prefix_keep_fraction"]
    )
    chosen = per_token[f"adv_{case['hyper']['advantage']}"][mask]
    return {**per_token, "adv_after_entropy_clip": spread(chosen * keep, mask)}


# ---- the pieces: temperature, advantages, teacher update, prefix schedule -----------------------------------


@pytest.mark.parametrize("through", ["functions", 1, 7, 64])
@pytest.mark.parametrize("search", ["newton", "bisect"])
@pytest.mark.parametrize(("case", "dtype"), precisions(lambda case: case["objective"] == "tau"))
def test_golden_temperature(case: Case, dtype: torch.dtype, search: str, through: str | int) -> None:
    """Through the functions, and through the head in chunks of so many tokens."""
    tensors = tensors_of(case)
    logits = tensors["teacher_logits"].flatten(0, 1)
    settings = settings_of(case, search=search)
    if isinstance(through, str):
        solution = solve_logits(logits.to(dtype), settings)
    else:
        identity, labels = torch.eye(logits.shape[1]), torch.zeros(len(logits), dtype=torch.int64)
        solution = teacher_logp(logits, identity, labels, settings, chunk=through, compute_dtype=dtype)
    got = {"tau": solution.tau, "H_topk": solution.entropy, "H_full": entropy(logits)}
    torch.testing.assert_close(solution.entropy, top_k_entropy(logits, settings.topk), rtol=1e-5, atol=1e-5)
    compare(case, tensors, {name: value.view(tensors["want tau"].shape) for name, value in got.items()})


def advantage(case: Case, tensors: Got) -> Got:
    hyper, rows = case["hyper"], (tensors["rewards"], tensors["group"])
    options = {"use_std": hyper["use_std"], "epsilon": hyper["epsilon"], "single_row": "upstream"}
    found = split_advantage(*rows, tensors["on_policy"], **options) if "on_policy" in tensors else None
    found = group_advantage(*rows, **options) if found is None else found
    return {"advantages": found[:, None] * tensors["response_mask"]}


def teacher_update(case: Case, tensors: Got) -> Got:
    thetas, hyper = tensors["thetas"], case["hyper"]
    phi, used = thetas[0], []
    for step in range(1, len(thetas)):
        used.append(phi)
        if sync_due(step, hyper["sync_every"]):
            phi = mix(phi, thetas[step], hyper["student_weight"])
    return {"teacher_used": torch.stack(used)}


def prefix_schedule(case: Case, tensors: Got) -> Got:
    hyper = case["hyper"]
    names = {"prefix_start": hyper["init"], "prefix_end": hyper["target"], "prefix_decay_steps": hyper["n_steps"]}
    return {"low": torch.tensor([groups.prefix_low(int(step), **names) for step in tensors["steps"]])}


PIECES: dict[str, Callable[[Case, Got], Got] | None] = {
    "tau": None,  # has its own test
    "advantage": advantage,
    "advantage_split": advantage,
    "teacher_update": teacher_update,
    "prefix_schedule": prefix_schedule,
}


@pytest.mark.parametrize("case", of(lambda case: case["objective"] in PIECES and case["objective"] != "tau"))
def test_golden_piece(case: Case) -> None:
    tensors, piece = tensors_of(case), PIECES[case["objective"]]
    assert piece is not None
    compare(case, tensors, piece(case, tensors))
