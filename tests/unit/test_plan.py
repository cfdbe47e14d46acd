"""`curiosft plan`: what fake steps count, how it is drawn out to all layers, what is refused and what is written."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command import curiosft
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoConfig

from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.config import load
from curiosft_cli.run.device import GIB, MainMemory
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Config
from curiosft_cli.tools.plan import choices, estimate, machines
from curiosft_cli.tools.plan.command import MODELS
from curiosft_cli.tools.plan.estimate import StagePlan, exchange_s, plan_sft, plan_stages
from curiosft_cli.tools.plan.full_pack import FullPack
from curiosft_cli.tools.plan.machines import Setting
from curiosft_cli.tools.plan.memory import SENDING, Shards, phases_of_device, sent_bytes
from curiosft_cli.tools.plan.probe import Probe, calibrated
from curiosft_cli.train import size
from curiosft_cli.train.fake_step import (
    BACKWARD,
    FORWARD,
    HEAD,
    INPUTS,
    LATE,
    UPDATE,
    StepCost,
    measure,
    step_cost,
    step_seconds,
)
from curiosft_cli.train.head.cpu_kernels import CpuKernels
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.meter import Meter
from curiosft_cli.train.size import Size

PARAMETERS = 107_072
"""Of the tiny model, tied head included once."""
LENGTHS = ((10, 40), (20, 30))


def cost_of(shape: Any, *settings: str, dtype: torch.dtype = torch.bfloat16, whole: bool = False) -> Any:
    sft = load("sft", list(settings)).config.sft
    objective = SFT_OBJECTIVES[sft.objective].bind(**sft.params)
    how = measure if whole else step_cost
    return how(shape, sft, objective, LENGTHS, dtype=dtype, kernels=Kernels())


def test_the_meter_counts_what_lives_and_what_moves() -> None:
    mib = 2**20
    with Meter() as meter:
        weight = torch.zeros(mib // 4)
        meter.name("weights", [weight])
        with meter.phase("first"):
            other = weight + 1.0
            del other
            view = weight.view(-1, 1024)
            product = view @ view.t()
        del view
        with meter.phase("second"):
            meter.term = "more"
            torch.zeros(3 * mib // 4)
    assert meter.peaks["first"] == {"weights": mib, "activations": mib}
    assert meter.peaks["second"] == {"weights": mib, "activations": product.nbytes, "more": 3 * mib}
    assert meter.flops["first"] == 2 * 256 * 1024 * 256
    assert meter.moved["first"] == 2 * mib
    assert meter.live == {"weights": mib, "activations": product.nbytes, "more": 0}


def test_autograd_sums_gradients_in_place() -> None:
    for sums_in_place, alive in ((True, 2), (False, 3)):
        with Meter() as meter:
            one, other = torch.zeros(1024), torch.zeros(1024)
            with meter.phase("sum", sums_in_place=sums_in_place):
                total = one + other
            del one, other
        assert meter.peaks["sum"] == {"activations": alive * 4096}
        assert meter.live == {"activations": total.nbytes}


@pytest.mark.parametrize("settings", [("sft.objective=curio",), ("sft.gradient_checkpointing=true",)])
def test_all_layers_lie_on_the_line_through_two_and_four(tiny_model: Path, settings: tuple[str, ...]) -> None:
    shape = size.with_layers(AutoConfig.from_pretrained(tiny_model), 8)
    line, real = cost_of(shape, *settings), cost_of(shape, *settings, whole=True)
    assert line.flops == real.flops
    for phase, terms in real.peaks.items():
        assert sum(line.peaks[phase].values()) == pytest.approx(sum(terms.values()), rel=1e-3)


def test_the_terms_of_a_step_are_those_of_the_model(tiny_model: Path) -> None:
    shape = AutoConfig.from_pretrained(tiny_model)
    cost = cost_of(shape, "sft.objective=curio", whole=True)
    for phase in (INPUTS, FORWARD, BACKWARD, UPDATE):
        assert cost.peaks[phase]["weights"] == 4 * PARAMETERS
        assert cost.peaks[phase]["teacher"] == 2 * PARAMETERS
        # 8 bytes of moments and a counter for each of the 26 tensors.
        assert cost.peaks[phase]["optimizer"] == 8 * PARAMETERS + 26 * 4
    assert cost.peaks[UPDATE]["gradients"] == 4 * PARAMETERS
    tokens, labels, heads, head = 100, 70, 2, 32
    layers = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)  # products of the two layers
    attention = 2 * 2 * heads * head * sum(sum(row) ** 2 for row in LENGTHS)
    assert cost.flops[INPUTS] + cost.flops[INPUTS + HEAD] == 2 * tokens * layers + attention + 2 * labels * 64 * 512
    assert (
        cost.flops[FORWARD] + cost.flops[FORWARD + HEAD] == 2 * tokens * layers + attention + 3 * 2 * labels * 64 * 512
    )
    # The first layer's inputs are embeddings, which have gradients too.
    assert cost.flops[BACKWARD] + cost.flops[BACKWARD + LATE] == 4 * tokens * layers + 2.5 * attention


def test_a_row_may_be_longer_than_the_vocabulary(tiny_model: Path) -> None:
    shape, sft = AutoConfig.from_pretrained(tiny_model), load("sft").config.sft
    how = {"dtype": torch.float32, "kernels": Kernels()}
    objective = SFT_OBJECTIVES["sft"].bind()
    shorter, longer = (measure(shape, sft, objective, ((prompt, 9),), **how) for prompt in (600, 700))
    assert shape.vocab_size < 600 and longer.flops[FORWARD] > shorter.flops[FORWARD]


def test_adapters_have_gradients_and_moments_of_their_own_alone(tiny_model: Path) -> None:
    shape = AutoConfig.from_pretrained(tiny_model)
    cost = cost_of(shape, "sft.lora.rank=4", whole=True)
    # q, k, v, o, gate, up and down of two layers: rank x (inputs + outputs) each.
    adapters = 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)
    assert cost.peaks[UPDATE]["weights"] == 4 * (PARAMETERS + adapters)
    assert cost.peaks[UPDATE]["gradients"] == 4 * adapters
    assert cost.peaks[UPDATE]["optimizer"] == 8 * adapters + 2 * 7 * 2 * 4


def test_shipped_descriptions_have_the_parameters_of_their_models() -> None:
    known = {
        "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
        "Qwen/Qwen3-4B-Base": 4_022_468_096,
        "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    }
    described = json.loads(MODELS.read_text())
    assert {name: size.model_size(AutoConfig.for_model(**shape)).all for name, shape in described.items()} == known


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with 12 MiB: the tiny model's weights fit, a full pack's activations do not."""
    monkeypatch.setitem(machines.GPUS, "small", machines.Machine(12 * 2**20, 1e9, 1e9, 1e9))


def plan_of(model: Path, *more: object) -> Any:
    common = ("--rows=100", "--prompt-tokens=20", "--response-tokens=108", "--gpus=1")
    settings = (f"model.path={model}", 'run.stages=["sft"]', "sft.max_tokens_per_batch=2048", "sft.batch_size=64")
    return curiosft("plan", "curio", *settings, *common, *more)


def test_a_plan_says_what_does_not_fit_and_writes_what_does(
    small_gpu: None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = plan_of(tiny_model, "--gpu=small")
    assert done.returncode == 4 and "DOES NOT FIT" in done.stdout, done.stdout
    assert "first to change: sft.gradient_checkpointing=true" in done.stdout
    done = plan_of(tiny_model, "--gpu=small", "--write")
    assert done.returncode == 0, done.stderr
    written = load("curio-planned.toml").config.sft
    assert written.batch_size == 64 and load("curio-planned.toml").config.model.path == str(tiny_model)
    assert written.gradient_checkpointing and "activations are computed again" in Path("curio-planned.toml").read_text()
    again = plan_of(tiny_model, "--gpu=small", "--write")
    assert again.returncode == 2 and "curio-planned.toml exists" in again.stderr


def test_a_plan_in_json_adds_up(tiny_model: Path) -> None:
    done = plan_of(tiny_model, "--gpu=h100-80g", "--json", "--mfu=0.5")
    [stage] = json.loads(done.stdout)["stages"]
    assert done.returncode == 0 and stage["fits"]
    assert stage["steps"] == 6  # 3 epochs of ceil(100 / 64)
    assert stage["step_s"] == pytest.approx(stage["flops"] / (989e12 * 0.5))
    assert stage["total_s"] == pytest.approx(6 * stage["step_s"])
    assert stage["disk"] == pytest.approx((4 + 8 + 2) * PARAMETERS)


def test_an_unknown_gpu_ends_with_a_line(tiny_model: Path) -> None:
    done = plan_of(tiny_model, "--gpu=h100")
    assert done.returncode == 2 and "knows no GPU 'h100'" in done.stderr and "h100-80g" in done.stderr


def test_training_refuses_only_what_cannot_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load("sft", ["launch.processes=2"]).config
    shape = AutoConfig.for_model(**json.loads(MODELS.read_text())["Qwen/Qwen2.5-Math-7B"])
    device = SimpleNamespace(device=torch.device("cuda"), num_processes=2)
    needed = 16 * 7_615_616_512 // 2
    monkeypatch.setattr(size, "device_memory", lambda _: needed)
    started = time.perf_counter()
    size.check_memory(config, config.sft, shape, device)  # ty: ignore[invalid-argument-type]
    assert time.perf_counter() - started < 1.0
    monkeypatch.setattr(size, "device_memory", lambda _: needed - 1)
    with pytest.raises(CurioError, match=r"sft holds at least 56.7 GiB in each process, most of it optimizer \(28.4\)"):
        size.check_memory(config, config.sft, shape, device)  # ty: ignore[invalid-argument-type]


def test_of_the_parts_of_a_model_those_of_a_node_those_offloaded_and_those_trained_count() -> None:
    """By hand: 2 layers of 10 and 4 more parameters, moments 192 bytes, two nodes of four devices, 2 bytes gathered."""
    whole = Size(10, 2, 4, 1)
    state = {"weights": 96, "gradients": 96, "optimizer": 192, "teacher": 48}
    cost = StepCost({INPUTS: state, BACKWARD: state, UPDATE: state}, {}, {})

    def terms(phase: str, *, parts: int | None, offload: bool = False, adapters: int = 0) -> dict[str, float]:
        own = {UPDATE: state | {"gradients": 4 * adapters}} if adapters else {}
        changed = replace(cost, peaks={**cost.peaks, **own})
        shards = Shards(8, parts, offload, 2)
        return phases_of_device(changed, whole, shards, teacher=True, adapters=bool(adapters))[phase]

    assert terms(UPDATE, parts=None)["buckets of gradients"] == 4 * 24
    assert terms(UPDATE, parts=None, adapters=6)["buckets of gradients"] == 4 * 6
    for parts in (4, 8):
        held = terms(BACKWARD, parts=parts)
        assert (held["weights"], held["optimizer"], held["teacher"]) == (96 / parts, 192 / parts, 48 / parts)
        assert held["gathered weights"] == 4 * 4 + 2 * 10 * 2
        assert held["gathered gradients"] == 4 * (4 - 1) + 10 * (2 + 4)
    assert terms(SENDING, parts=8) == {name: held / 8 for name, held in state.items()} | {
        "gathered gradients": 2 * 4 * 4
    }
    assert terms(SENDING, parts=8, offload=True) == {"gathered gradients": 2 * 4 * 4}
    # Three parameters of adapters in each layer, none outside.
    assert terms(BACKWARD, parts=4, adapters=6)["gathered gradients"] == 3 * (2 + 4)
    assert terms(INPUTS, parts=8)["weights set aside"] == 96 / 8
    assert {name for name, held in terms(INPUTS, parts=8, offload=True).items() if held} == {"gathered weights"}


def test_what_is_sent_in_a_step_counted_by_hand() -> None:
    """2 layers of 10 and 4 more parameters, 2 bytes gathered: 56 bytes to gather, gradients of 96 to sum; two packs."""
    whole = Size(10, 2, 4)
    cost = StepCost({UPDATE: {"gradients": 4 * 6}}, {INPUTS: 0}, {})
    taught = replace(cost, flops={INPUTS: 1})

    def sent(ranks: int, parts: int | None, cost: StepCost = cost, **how: bool) -> tuple[float, float]:
        return sent_bytes(cost, whole, Shards(ranks, parts, False, 2), 2, **({"adapters": False} | how))

    assert sent(1, None) == (0, 0)
    # Plain data parallel sums once, whatever the number of packs.
    assert sent(2, None) == (0, 2 * 96 / 2)
    assert sent(4, None, adapters=True) == (0, 2 * 24 * 3 / 4)
    # Full: in each pass, and sums for each pack.
    assert sent(2, 2) == (2 * (2 * 56 + 96) / 2, 0)
    assert sent(2, 2, taught) == (2 * (3 * 56 + 96) / 2, 0)
    assert sent(2, 2, scored=True) == sent(2, 2, taught)
    assert sent(4, 4, adapters=True) == (2 * (2 * 56 + 24) * 3 / 4, 0)
    # Hybrid: two nodes of four; each device sums its quarter with one of the other node.
    assert sent(8, 4) == (2 * (2 * 56 + 96) * 3 / 4, 2 * 2 * (96 / 4) / 2)


def test_bytes_pass_the_slowest_link_on_their_way() -> None:
    machine = machines.Machine(0, 1.0, 1.0, link=100.0, network=40.0)

    def took(nodes: int, parts: int | None) -> float:
        setting = Setting(machine, "some-gpu", 4, nodes, 1, 1, 1)
        return exchange_s((800.0, 80.0), setting, Shards(4 * nodes, parts, False, 2))

    assert took(1, None) == pytest.approx(80 / 100)
    assert took(2, None) == pytest.approx(80 / 40)
    assert took(2, 8) == pytest.approx(800 / 40 + 80 * 4 / 40)
    assert took(2, 4) == pytest.approx(800 / 100 + 80 * 4 / 40)


def test_processes_share_the_cores_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    config = load("sft").config
    assert [machines.cores_of_process(config, processes) for processes in (1, 2, 3, 16)] == [8, 4, 2, 0.5]
    assert machines.cores_of_process(load("sft", ["launch.threads=3"]).config, 2) == 3


def test_on_a_cpu_two_processes_exchange_and_one_has_gaps_in_its_memory(tiny_model: Path) -> None:
    shape = AutoConfig.from_pretrained(tiny_model)
    settings = ['run.stages=["sft"]', "sft.precision=float32", "sft.max_tokens_per_batch=256", "launch.threads=1"]
    config = load("sft", settings).config
    slow = machines.Machine(2**30, 1e9, 1e9, 1.0, 1.0, kept=2**20)

    def plan(processes: int) -> StagePlan:
        setting = Setting(slow, machines.CPU, processes, 1, 256, 20, 108)
        return plan_sft(config, shape, size.model_size(shape), setting)

    one, two = plan(1), plan(2)
    gradient = 512 * 64 * 4  # of the embedding
    assert one.terms["kept by the libraries"] == 2 * (2**20 + gradient)
    assert two.terms["kept by the libraries"] == 2**20
    # 128 rows of 128 tokens in packs of two are 64 packs of two passes and a sum: half of 12 bytes for each parameter.
    assert one.step_s and one.step_s < 60 and two.step_s
    cores = min(1.0, machines.usable_cores() / 2)
    assert two.step_s * cores == pytest.approx(64 * 6 * PARAMETERS, abs=60)


def plan_with(terms: dict[str, float], memory: float) -> StagePlan:
    return StagePlan("sft", BACKWARD, terms, memory, 0.0, 1.0, 1.0, 1, 0.0, 0.0, None)


def test_shards_are_the_first_choice_and_main_memory_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def planned(config: Config, shape: object, setting: Setting) -> list[StagePlan]:
        parts = {None: 1, "auto": 16, "full": 16, "hybrid": 8}[config.launch.shard]
        held = 0.0 if config.launch.offload else 64 * GIB / parts
        return [plan_with({"weights": held, "activations": 8.0 * GIB}, limits[-1] * GIB)]

    monkeypatch.setattr(choices, "plan_stages", planned)
    setting = Setting(machines.GPUS["h100-80g"], "h100-80g", 8, 2, 100, 10, 10)
    narrow = ("sft.gradient_checkpointing=true", "sft.max_tokens_per_batch=16", "sft.head_chunk=128")
    for shard, limit, wanted in (
        ("none", 12, ["launch.shard=full"]),
        ("none", 80, []),
        ("hybrid", 12, ["launch.shard=full"]),
        ("auto", 11, ["launch.offload=true"]),
    ):
        limits.append(limit)
        chosen, _ = choices.fitting("sft", [f"launch.shard={shard}", *narrow], None, setting)
        assert list(chosen) == wanted
        assert all("sft needs" in why for why in chosen.values())
    limits.append(7)
    with pytest.raises(CurioError, match="whatever is set"):
        choices.fitting("sft", list(narrow), None, setting)


def test_prompts_are_as_long_as_a_run_takes_them(tiny_model: Path) -> None:
    shape = AutoConfig.from_pretrained(tiny_model)
    config = load("sft", ['run.stages=["eval"]', "data.max_prompt_length=64"]).config
    flops = []
    for prompt in (64, 1000):
        setting = Setting(machines.GPUS["h100-80g"], "h100-80g", 1, 1, 100, prompt, 100)
        [plan] = plan_stages(config, shape, setting)
        flops.append(plan.flops)
    assert flops[0] == flops[1]


def test_the_time_of_all_layers_lies_on_the_line_through_a_few(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that counts the layers which were run makes the seconds exact."""
    passed: list[str] = []

    def count(part: torch.nn.Module, *_: object) -> None:
        passed.extend(["layer"] * type(part).__name__.endswith("DecoderLayer"))

    monkeypatch.setattr("curiosft_cli.train.meter.time.thread_time", lambda: float(len(passed)))
    shape, sft, objective = AutoConfig.from_pretrained(tiny_model), load("sft").config.sft, SFT_OBJECTIVES["sft"].bind()
    hook = register_module_forward_hook(count)
    try:
        for layers in (2, 5, 6, 10):
            several = size.with_layers(shape, layers)
            took = step_seconds(several, sft, objective, LENGTHS, beside=1, dtype=torch.float32, kernels=CpuKernels())
            assert took[FORWARD] == layers == sum(took.values())
    finally:
        hook.remove()


def test_what_is_too_large_for_this_machine_has_the_time_of_the_general_speeds(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = AutoConfig.from_pretrained(tiny_model)
    config = load("sft", ['run.stages=["sft"]', "sft.precision=float32", "launch.threads=1"]).config
    monkeypatch.setattr(estimate, "main_memory", lambda: MainMemory(2**30, 2**20))
    monkeypatch.setattr(FullPack, "seconds", None)
    slow = machines.Machine(2**30, 1e6, 1e12, 1.0, 1.0)
    plan = plan_sft(config, shape, size.model_size(shape), Setting(slow, machines.CPU, 1, 1, 256, 20, 108))
    assert plan.step_s == pytest.approx(plan.flops / 1e6, rel=0.01)


def test_a_probe_shows_what_it_measured_and_corrects_the_plan(tiny_model: Path, tmp_path: Path) -> None:
    settings = (f"model.path={tiny_model}", 'run.stages=["sft"]', "data.train=arithmetic:train:24", "sft.batch_size=4")
    more = ("launch.processes=0", "launch.threads=1", "sft.precision=float32", "sft.max_tokens_per_batch=512")
    flags = ("--gpu=cpu", "--gpus=1", "--prompt-tokens=40", "--response-tokens=40", "--probe", "--json")
    done = curiosft("plan", "sft", *settings, *more, *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    [stage], probe = found["stages"], found["probe"]
    assert probe["steps"] == 3 and probe["tokens"] > 0
    beside = (probe["peak_gib"] - probe["predicted_gib"]) * GIB
    assert stage["terms"]["measured beside these"] == pytest.approx(beside)
    assert probe["predicted_s"] > 0
    setting = Setting(machines.Machine(0, 1.0, 1.0, 1.0), machines.CPU, 1, 1, 1, 1, 1)
    corrected = calibrated(setting, Probe(3, 10.0, 1.5, 3.0, 1.25, 2.0))
    assert (corrected.beside, corrected.slower) == (0.25 * GIB, 1.5)
    assert calibrated(setting, Probe(3, 10.0, 1.5, 3.0)) == setting
