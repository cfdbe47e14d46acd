"""What a plan is made for: GPUs by their data sheets, or this machine's CPU, measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curiosft_cli.run.cpu_allocator import set_cpu_allocator
from curiosft_cli.run.device import GIB
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.processes import usable_cores

if TYPE_CHECKING:
    import torch

    from curiosft_cli.run.sections import Config

CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """One device.

    Attributes:
        memory: bytes of one device.
        products: floating-point operations of bfloat16 products in a second, at the peak.
        moved: bytes of memory traffic in a second, at the peak.
        link: bytes that one device sends to others of its node in a second, at the peak.
        network: bytes that one node sends to another in a second, at the peak.
        reached: share of the peak of the products that whole steps reach (MFU).
        imports: bytes of a process on a CPU without a model.
        kept: bytes that a process of a training on a CPU holds beside its tensors and imports.
    """

    memory: int
    products: float
    moved: float
    link: float
    network: float = 400e9
    reached: float = 0.4
    imports: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Setting:
    """What the stages would run on, and what is assumed of the data.

    Attributes:
        machine: one device.
        name: of the device.
        gpus: devices of one node.
        nodes: how many nodes.
        rows: of the training data.
        prompt_tokens: of a row, on average.
        response_tokens: of a response or a completion, on average.
        pack: (prompt, response) tokens of each row of a full pack, where they are known; else rows of average length.
        beside: bytes of a process that a probe found beside the terms.
        slower: seconds of a step that a probe measured, over those that were predicted.
        usable: share of the memory that tensors may take; the rest is for the CUDA context and gaps (our choice).
    """

    machine: Machine
    name: str
    gpus: int
    nodes: int
    rows: int
    prompt_tokens: int
    response_tokens: int
    pack: tuple[tuple[int, int], ...] = ()
    beside: float = 0.0
    slower: float = 1.0
    usable: float = 0.94

    @property
    def ranks(self) -> int:
        """Training processes."""
        return self.gpus * self.nodes

    @property
    def memory(self) -> float:
        """Bytes that tensors may take on one device; the processes of a CPU share one memory."""
        return self.machine.memory * self.usable / (self.gpus if self.name == CPU else 1)


# Data sheets: dense bfloat16 products with float32 sums, memory bandwidth, and one direction of NVLink, or of PCIe 4.0
# where there is none. Between nodes: the eight InfiniBand adapters of a DGX H100 (400 Gb/s each) or A100 (200 Gb/s
# each); of machines without NVLink one adapter of 200 Gb/s is assumed.
GPUS: dict[str, Machine] = {
    "a100-40g": Machine(40 * GIB, 312e12, 1.55e12, 300e9, 200e9),
    "a100-80g": Machine(80 * GIB, 312e12, 2.04e12, 300e9, 200e9),
    "h100-80g": Machine(80 * GIB, 989e12, 3.35e12, 450e9),
    "h800-80g": Machine(80 * GIB, 989e12, 3.35e12, 200e9),
    "h200-141g": Machine(141 * GIB, 989e12, 4.8e12, 450e9),
    "b200-180g": Machine(180 * GIB, 2250e12, 8e12, 900e9),
    "l40s-48g": Machine(48 * GIB, 362e12, 0.86e12, 32e9, 25e9),
    "rtx4090-24g": Machine(24 * GIB, 165e12, 1.01e12, 32e9, 25e9),
}


def machine_named(name: str, mfu: float | None, dtype: torch.dtype | None = None) -> Machine:
    """The device of this name; "cpu" is this machine, measured in about a second.

    Args:
        name: one of `GPUS`, or "cpu".
        mfu: share of a GPU's peak that whole steps reach; None is the default.
        dtype: of the products, for a CPU.

    Raises:
        CurioError: there is no such device.
    """
    if name == CPU:
        return measured_cpu(dtype)
    if name not in GPUS:
        raise CurioError(f"curiosft plan knows no GPU '{name}'", nearest(name, [*GPUS, CPU]))
    known = GPUS[name]
    return known if mfu is None else replace(known, reached=mfu)


def measured_cpu(
    dtype: torch.dtype | None,
    rows: int = 1024,
    width: int = 2048,
    passed: int = 2**24,
    copied: int = 2**22,
    copies_to_send: float = 8.0,
    kept: int = 100 * 2**20,
) -> Machine:
    """General speeds of one process of this machine: of large products, and of passes over the memory.

    Args:
        dtype: of the products.
        rows: the product is that of a matrix [rows, width] with one [width, width].
        width: see `rows`.
        passed: numbers of a tensor that no cache holds.
        copied: numbers of a tensor that is copied into fresh memory.
        copies_to_send: a byte sent to another process of this machine takes as long as so many such copies. Measured
            with trainings in two processes over gloo: 6 to 13, with the copies and the calls around the exchange.
        kept: see `Machine`; docs/performance.md has what was measured.
    """
    import accelerate  # noqa: F401  (what a training imports)
    import torch

    from curiosft_cli.train.size import device_memory

    left, right = (torch.randn(size, width).to(dtype or torch.float32) for size in (rows, width))
    product_s = _seconds(lambda: left @ right.t())
    target, other = torch.zeros(passed), torch.zeros(passed)
    moved = 3 * target.nbytes / _seconds(lambda: target.add_(other))
    set_cpu_allocator(sharded=True)
    link = 4 * copied / _seconds(target[:copied].clone) / copies_to_send
    return Machine(
        memory=device_memory(torch.device(CPU)),
        products=2 * rows * width * width / product_s,
        moved=moved,
        link=link,
        network=link,
        reached=1.0,
        imports=_resident(),
        kept=kept,
    )


def cores_of_process(config: Config, processes: int) -> float:
    """Cores of this machine on which each of the processes of a training works at a time, by its threads."""
    cores = usable_cores()
    threads = config.launch.threads or int(os.environ.get("OMP_NUM_THREADS", "0").partition(",")[0])
    threads = threads or max(1, cores // processes)
    return min(float(threads), cores / processes)


def _resident() -> int:
    """Bytes of this process, which has the imports of a training; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _seconds(call: Callable[[], object], at_least_s: float = 0.2) -> float:
    """Processor seconds of one call with one thread, after a warm-up. Threads that wait for others would count too."""
    from curiosft_cli.train.fake_step import one_thread

    with one_thread():
        call()
        started, calls = time.process_time(), 0
        while time.process_time() - started < at_least_s:
            call()
            calls += 1
        return (time.process_time() - started) / calls
