"""The plan of each stage: memory by term, floating-point operations, seconds, and disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from curiosft_cli.objectives import RL_METHODS
from curiosft_cli.run.cpu_allocator import set_cpu_allocator
from curiosft_cli.run.device import GIB, main_memory
from curiosft_cli.run.objective_file import sft_objective
from curiosft_cli.tools.plan.full_pack import FullPack, dtype_of, full_pack
from curiosft_cli.tools.plan.machines import CPU, Setting, cores_of_process
from curiosft_cli.tools.plan.memory import Shards, Terms, largest, phases_of_device, sent_bytes
from curiosft_cli.train.shards import shard_kind
from curiosft_cli.train.size import BFLOAT16, FLOAT32, Size, held_always, model_size

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Config, Training


@dataclass(frozen=True)
class StagePlan:
    """What one stage needs.

    Attributes:
        stage: its name.
        phase: the part of the step that needs most memory.
        terms: bytes of one device by term in that part.
        memory: bytes that may be used.
        flops: floating-point operations of one step, on all devices.
        step_s: seconds of one step; None where there are no steps.
        total_s: seconds of the stage.
        steps: of the stage.
        disk: bytes at the end of the stage.
        disk_peak: bytes while the last checkpoint is written.
        lower: the setting to change first, where it does not fit; else None.
    """

    stage: str
    phase: str
    terms: Terms
    memory: float
    flops: float
    step_s: float | None
    total_s: float
    steps: int
    disk: float
    disk_peak: float
    lower: str | None

    @property
    def fits(self) -> bool:
        """Whether the terms fit."""
        return sum(self.terms.values()) <= self.memory


def plan_stages(config: Config, shape: Any, setting: Setting) -> list[StagePlan]:
    """The stages of `run.stages` that need a device, in their order."""
    size = model_size(shape)
    planned = {"sft": plan_sft, "rl": plan_rl, "eval": plan_eval}
    setting = replace(setting, prompt_tokens=min(setting.prompt_tokens, config.data.max_prompt_length))
    return [planned[name](config, shape, size, setting) for name in config.run.stages if name in planned]


def plan_sft(config: Config, shape: Any, size: Size, setting: Setting) -> StagePlan:
    """Supervised fine-tuning."""
    from curiosft_cli.train.teacher import teacher_dtype

    sft = config.sft
    objective = sft_objective(sft.objective, sft.objective_sha256).objective.bind(**sft.params)
    row = setting.prompt_tokens + min(setting.response_tokens, sft.max_response_length)
    pack = full_pack(sft, shape, objective, setting, ceil(sft.batch_size / setting.ranks), row)
    cost = pack.cost
    read = objective.needs & {"teacher_logp", "teacher_tau", "ref_logp", "ref_logits"} and sft.teacher.kind == "ema"
    copied = bool(read) and not sft.lora.rank  # a copy of adapters is small
    shards = shards_of(config, setting, dtype_of(sft, setting).itemsize)
    phases = phases_of_device(cost, size, shards, teacher=copied, adapters=bool(sft.lora.rank))
    if sft.teacher.offload:
        phases = {
            phase: {name: bytes_ for name, bytes_ in terms.items() if name != "teacher"}
            for phase, terms in phases.items()
        }
    phase, terms = largest(_with_libraries(phases, sft, size, setting, shards))
    if setting.beside:
        terms["measured beside these"] = setting.beside
    per_epoch = ceil(setting.rows / sft.batch_size)
    steps = min(sft.epochs * per_epoch, sft.max_steps or sft.epochs * per_epoch)
    share = sft.batch_size * row / pack.tokens
    packs = share / setting.ranks
    sent = sent_bytes(cost, size, shards, ceil(packs), adapters=bool(sft.lora.rank))
    step_s = setting.slower * _seconds(config, pack, setting, packs, shards, sent)
    own = size.all * getattr(teacher_dtype(sft.teacher, dtype_of(sft, setting)), "itemsize", 0) if copied else 0
    disk, peak = _disk(sft, size, steps, own)
    return StagePlan(
        "sft",
        phase,
        terms,
        setting.memory,
        sum(cost.flops.values()) * share,
        step_s,
        step_s * steps,
        steps,
        disk,
        peak,
        _first_to_lower("sft", sft, terms, setting) if sum(terms.values()) > setting.memory else None,
    )


def plan_rl(config: Config, shape: Any, size: Size, setting: Setting) -> StagePlan:
    """Reinforcement learning: the engine samples while the trainer holds its state, then it sleeps."""
    rl = config.rl
    # The losses of all methods read log-probabilities alone and differ by nothing that counts here.
    objective = RL_METHODS["grpo"].objective.bind()
    response = min(setting.response_tokens, rl.max_completion_length)
    row, rows = setting.prompt_tokens + response, rl.mini_batch_prompts * rl.num_generations
    pack = full_pack(rl, shape, objective, setting, ceil(rows / setting.ranks), row)
    cost = pack.cost
    # Before the updates every token is scored once more: a third of the products of the training pass.
    scoring = sum(cost.flops.values()) / 3
    shards = shards_of(config, setting, dtype_of(rl, setting).itemsize)
    phases = phases_of_device(cost, size, shards, teacher=False, adapters=bool(rl.lora.rank))
    if not rl.servers:
        phases["sampling"] = _beside_engine(rl, size, setting, shards)
    phase, terms = largest(_with_libraries(phases, rl, size, setting, shards))
    completions = rl.prompts_per_step * rl.num_generations
    share = completions * row / pack.tokens
    sampling_s = (
        completions
        * response
        / (setting.ranks * engine_tokens_per_s(shape, size, setting, rl.gpu_memory_utilization, row))
    )
    packs = share / setting.ranks
    sent = sent_bytes(cost, size, shards, ceil(packs), adapters=bool(rl.lora.rank), scored=True)
    step_s = sampling_s + _seconds(config, pack, setting, packs, shards, sent, scoring)
    steps = rl.steps if rl.epochs is None else rl.epochs * ceil(setting.rows / rl.prompts_per_step)
    disk, peak = _disk(rl, size, steps, 0)
    flops = (sum(cost.flops.values()) + scoring) * share + 2 * size.all * completions * response
    return StagePlan(
        "rl",
        phase,
        terms,
        setting.memory,
        flops,
        step_s,
        step_s * steps,
        steps,
        disk,
        peak,
        _first_to_lower("rl", rl, terms, setting) if sum(terms.values()) > setting.memory else None,
    )


def plan_eval(config: Config, shape: Any, size: Size, setting: Setting, completions: int = 1000) -> StagePlan:
    """Sampling `completions` completions; a model that one GPU cannot hold is spread over several."""
    from curiosft_cli.stages.evaluate.devices import devices_of_one

    settings = config.eval
    memory = int(setting.machine.memory * settings.gpu_memory_utilization)
    heads = shape.get_text_config().num_attention_heads
    each = devices_of_one(size.all * BFLOAT16, heads, setting.gpus, memory) if setting.name != CPU else 1
    response = min(setting.response_tokens, settings.max_completion_length)
    row = setting.prompt_tokens + response
    rate = engine_tokens_per_s(shape, size, setting, settings.gpu_memory_utilization, row) * setting.gpus
    terms = _engine_terms(size, setting, settings.gpu_memory_utilization, settings.kv_cache_gib, each)
    return StagePlan(
        stage=f"eval, {completions:,} completions",
        phase="sampling",
        terms=terms,
        memory=setting.machine.memory,
        flops=2.0 * size.all * completions * row,
        step_s=None,
        total_s=completions * response / rate,
        steps=0,
        disk=0.0,
        disk_peak=0.0,
        lower=None if sum(terms.values()) <= setting.machine.memory else "eval.gpu_memory_utilization",
    )


def shards_of(config: Config, setting: Setting, width: int) -> Shards:
    """How the model lies on the devices; on a CPU nothing is gained by offloading."""
    kind = shard_kind(config.launch, setting.ranks)
    parts = {None: None, "full": setting.ranks, "hybrid": setting.gpus}[kind]
    return Shards(setting.ranks, parts, config.launch.offload and setting.name != CPU, width)


def engine_tokens_per_s(
    shape: Any,
    size: Size,
    setting: Setting,
    share: float,
    context: int,
    *,
    most: int = 256,
    reached: float = 0.5,
    least_cache: float = GIB / 4,
) -> float:
    """Completion tokens in a second of one device: each step of the engine reads the weights and the cache once.

    Args:
        shape: configuration of the model.
        size: of the model.
        setting: the device.
        share: of its memory for the engine.
        context: tokens of prompt and completion.
        most: sequences at the same time (vLLM's default).
        reached: share of the bandwidth and of the products that sampling reaches (our choice, not measured).
        least_cache: bytes for keys and values, however full the memory is.
    """
    text = shape.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * BFLOAT16
    cache = max(least_cache, setting.machine.memory * share - size.all * BFLOAT16)
    sequences = max(1.0, min(float(most), cache / (token * context)))
    read_s = (size.all * BFLOAT16 + sequences * token * context / 2) / setting.machine.moved
    product_s = sequences * 2 * size.all / setting.machine.products
    return reached * sequences / max(read_s, product_s)


def _seconds(
    config: Config,
    pack: FullPack,
    setting: Setting,
    packs: float,
    shards: Shards,
    sent: tuple[float, float],
    more: float = 0.0,
) -> float:
    """Of one step with `packs` packs in one process. `more` floating-point operations come on top of each pack.

    GPUs exchange while they compute; the cores of a CPU do one or the other. What does not fit in this machine's
    memory is not run: then the general speeds count.
    """
    from curiosft_cli.train.fake_step import UPDATE

    machine, exchange = setting.machine, exchange_s(sent, setting, shards)
    cost, flops = pack.cost, sum(pack.cost.flops.values())
    if setting.name != CPU:
        return max(exchange, packs * (flops + more) / machine.products / machine.reached)
    cores = cores_of_process(config, setting.gpus)
    if max(sum(terms.values()) for terms in cost.peaks.values()) < (main_memory().free or setting.memory):
        set_cpu_allocator(sharded=shards.parts is not None)
        took = pack.seconds(ceil(cores * setting.gpus) - 1)
    else:
        took = {phase: cost.flops[phase] / machine.products + cost.moved[phase] / machine.moved for phase in cost.moved}
    update = took.pop(UPDATE)
    computed = packs * sum(took.values()) * (1 + more / flops) + update / (shards.parts or 1)
    # One thread of a process sends and receives.
    return computed / cores + exchange / min(1.0, cores)


def exchange_s(sent: tuple[float, float], setting: Setting, shards: Shards) -> float:
    """Seconds in which a device sends this to the other parts, and to the copies of its own, without computing.

    A ring through several nodes passes each link; what the devices of a node send to the same devices of other nodes
    shares the node's adapters.
    """
    machine = setting.machine
    ring = machine.link if setting.nodes == 1 else min(machine.link, machine.network)
    among_parts, among_copies = sent
    if shards.parts is None:
        return among_copies / ring
    inside = machine.link if shards.parts == setting.gpus else ring
    return among_parts / inside + among_copies * setting.gpus / machine.network


def _with_libraries(
    phases: dict[str, Terms], settings: Training, size: Size, setting: Setting, shards: Shards
) -> dict[str, Terms]:
    """On a CPU the libraries stand in the same memory. With shards their allocator gives back what is freed.

    Without, gaps remain: about as much as is held beside the tensors, and two of the gradient of the embedding, the
    largest block that comes and goes in each step.
    """
    kept = float(setting.machine.kept)
    if not shards.parts:
        kept = 2 * (kept + (0 if settings.lora.rank else size.embedding * FLOAT32)) if setting.name == CPU else 0
    more = {"imports": float(setting.machine.imports), "kept by the libraries": kept}
    return {phase: terms | {name: held for name, held in more.items() if held} for phase, terms in phases.items()}


def _beside_engine(rl: Training, size: Size, setting: Setting, shards: Shards) -> Terms:
    held = {} if shards.offload else held_always(size, rl)
    trainer = {name: held[name] / (shards.parts or 1) for name in ("weights", "optimizer") if name in held}
    return trainer | _engine_terms(size, setting, rl.gpu_memory_utilization, rl.kv_cache_gib, 1)


def _engine_terms(size: Size, setting: Setting, share: float, cpu_cache_gib: float, each: int) -> Terms:
    weights = size.all * BFLOAT16 / each
    if setting.name == CPU:
        return {"engine weights": weights, "KV cache": cpu_cache_gib * GIB}
    return {"engine weights": weights, "KV cache": max(0.0, setting.machine.memory * share - weights)}


def _disk(settings: Training, size: Size, steps: int, teacher: int) -> tuple[float, float]:
    """Bytes at the end, and while the last checkpoint is written: the newest one has the state, older ones weights."""
    weights = size.all * FLOAT32
    newest = weights + held_always(size, settings).get("optimizer", 0) + teacher
    saved = ceil(steps / settings.save_steps)
    older = min(saved, settings.keep_last) - 1
    older += steps // settings.keep_every if settings.keep_every else 0
    return newest + older * weights, 2 * newest + older * weights


def _first_to_lower(stage: str, settings: Training, terms: Terms, setting: Setting) -> str:
    """The setting that lowers the largest term that a setting can lower."""
    ways = {
        "activations": f"{stage}.max_tokens_per_batch, now {settings.max_tokens_per_batch}"
        if settings.gradient_checkpointing
        else f"{stage}.gradient_checkpointing=true",
        "copies for products": f"{stage}.gradient_checkpointing=true",
        "logits": f"{stage}.head_chunk, now {settings.head_chunk}",
        "KV cache": f"{stage}.gpu_memory_utilization, now {settings.gpu_memory_utilization}",
        "teacher": "sft.teacher.offload=true",
    }
    held = f"launch.shard=full over more GPUs, {stage}.lora.rank=16, or launch.offload=true"
    ways |= dict.fromkeys(("weights", "gradients", "optimizer"), held)
    largest_first = sorted(terms, key=lambda name: -terms[name])
    return next(ways[name] for name in largest_first if name in ways)
