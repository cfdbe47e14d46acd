"""The balance of policy, entropy and supervised terms of the hybrid methods, with the weights that training uses.

`balance.json` holds updates of the published scripts, row by row. `CURIOSFT_GOLDENS` names another folder with one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from curiosft_cli.objectives import RL_METHODS, BoundObjective, TokenRows, objective_parameters
from curiosft_cli.objectives.hybrid import ScriptSplit
from curiosft_cli.objectives.reduction import Totals
from curiosft_cli.run.sections import Rl
from curiosft_cli.stages.rl.groups import TrainingSample
from curiosft_cli.stages.rl.updates import by_token
from curiosft_cli.train.batches import Pack, rank_packs
from curiosft_cli.train.encode import Row
from curiosft_cli.train.loop import Loop
from curiosft_cli.train.totals import count_totals

FILE = Path(os.environ.get("CURIOSFT_GOLDENS", Path(__file__).parents[1] / "goldens")) / "balance.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["cases"] if FILE.exists() else []
NAMES = {"curio_rl": "curio_official"}

Case = Mapping[str, Any]
Update = tuple[Sequence[Pack], Sequence[dict[str, Tensor]], Totals]


def objective_of(case: Case) -> BoundObjective:
    """The case's method with the constants of its script."""
    objective, script = RL_METHODS[NAMES.get(case["method"], case["method"])].objective, case["script"]
    wanted = {
        "script_gpus": script["gpus"],
        "script_tokens": script["token_limit"],
        "entropy_coef": script["entropy_coef"],
        "sft_loss_coef": script["sft_coef"],
    }
    return objective.bind(**{name: wanted[name] for name in wanted.keys() & objective_parameters(objective).keys()})


def samples_of(case: Case) -> list[TrainingSample]:
    rows = case["rows"]
    whole = [response if expert else 0 for response, expert in zip(rows["response"], rows["expert"], strict=True)]
    columns = zip(rows["prompt"], rows["response"], rows.get("prefix", whole), strict=True)
    return [
        TrainingSample(Row((0,) * prompt, (0,) * response), 0, 0.0, given, (0.0,) * (response - given), -1.0, -1.0)
        for prompt, response, given in columns
    ]


def update_of(case: Case, objective: BoundObjective, max_tokens: int, ranks: int = 1) -> list[Update]:
    """What each rank has of the update: its packs, what the objective reads, and the totals."""
    samples, length = samples_of(case), case["script"]["L"]
    rows = [sample.row for sample in samples]
    shares = [rank_packs(rows, max_tokens, rank=rank, ranks=ranks, device="cpu") for rank in range(ranks)]
    extras = [[by_token(samples, pack) for pack in packs] for packs in shares]
    counts: list[list[int]] = []
    for packs, extra in zip(shares, extras, strict=True):
        count_totals(rows, packs, length, objective, extra, everywhere=lambda own: counts.append(own) or own)
    summed = [sum(column) for column in zip(*counts, strict=True)]
    return [
        (packs, extra, count_totals(rows, packs, length, objective, extra, everywhere=lambda _: summed))
        for packs, extra in zip(shares, extras, strict=True)
    ]


def balance(update: Update, objective: BoundObjective, ranks: int = 1) -> dict[str, float]:
    """Sums over the tokens of the factors of `-A r`, `H` and `-log pi`, by the gradient of the weighted loss."""
    packs, extras, totals = update
    accelerator = SimpleNamespace(num_processes=ranks)
    loop: Any = SimpleNamespace(settings=Rl(), accelerator=accelerator)
    found = {"policy": 0.0, "entropy": 0.0, "sft": 0.0}
    for pack, extra in zip(packs, extras, strict=True):
        weights = [Loop.weights_of(loop, pack, divisor, totals).double() for divisor in objective.terms]
        logp = torch.full(weights[0].shape, -0.5, requires_grad=True)
        entropy = torch.ones_like(logp).requires_grad_() if "entropy" in objective.needs else None
        own = {**extra, "old_logp": logp.detach()}
        terms = objective.fn(TokenRows(logp, pack.labels, own, entropy)).terms
        found["policy"] += float(weights[0][terms[0] != 0].sum()) / ranks
        still = {**own, "advantage": torch.zeros_like(logp)}
        terms = objective.fn(TokenRows(logp, pack.labels, still, entropy)).terms
        torch.stack([(term * weight).sum() for term, weight in zip(terms, weights, strict=True)]).sum().backward()
        assert logp.grad is not None
        found["sft"] -= float(logp.grad.double().sum()) / ranks
        if entropy is not None and entropy.grad is not None:
            found["entropy"] -= float(entropy.grad.double().sum()) / ranks
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden_balance(case: Case) -> None:
    """The definition to 1e-6, and the script itself within the deviation that the case states."""
    objective, expected = objective_of(case), case["expected"]
    (update,) = update_of(case, objective, max_tokens=16384)
    found = balance(update, objective)
    for term in ("entropy", "sft"):
        found[f"{term}_to_policy"] = found[term] / found["policy"]
    if "K" in expected["definition"]:
        split = ScriptSplit(case["script"]["gpus"], case["script"]["token_limit"])
        found |= {"K": split.micro_batches(update[2]), "K_e": split.with_expert(update[2])}
    for name, value in expected["definition"].items():
        assert found[name] == pytest.approx(value or 0.0, rel=1e-6, abs=1e-12), name
    for name, deviation in expected["definition_vs_script"].items():
        script = expected["script"][name]
        assert abs(found[name] - script) <= (abs(deviation or 0.0) + 1e-6) * script, name


SMALLEST = sorted(CASES, key=lambda case: sum(case["rows"]["response"]))[:2]


@pytest.mark.parametrize(("max_tokens", "ranks"), [(400, 1), (3000, 1), (10**6, 1), (3000, 2), (700, 4)])
@pytest.mark.parametrize("case", SMALLEST, ids=lambda case: case["id"])
def test_golden_balance_does_not_see_packs_or_ranks(case: Case, max_tokens: int, ranks: int) -> None:
    objective = objective_of(case)
    (whole,) = update_of(case, objective, max_tokens=16384)
    shares = update_of(case, objective, max_tokens, ranks)
    assert all(totals == whole[2] for _, _, totals in shares)
    want, parts = balance(whole, objective), [balance(share, objective, ranks) for share in shares]
    assert {name: sum(part[name] for part in parts) for name in want} == pytest.approx(want, rel=1e-6)


def test_the_textbook_reading_is_one_key_away() -> None:
    """Without the constants: rows times L for the policy, one mean for each other term."""
    objective = RL_METHODS["hpt"].objective.bind(script_gpus=None)
    assert objective.terms == ("reduction", "expert", "tokens")
    assert RL_METHODS["luffy"].objective.bind(script_gpus=None, entropy_coef=0.0).terms == ("reduction",)
