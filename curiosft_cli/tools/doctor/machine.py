"""The fast checks of the machine: Python, packages, threads, disk, memory, shared memory, open files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from curiosft_cli.run.device import GIB, main_memory
from curiosft_cli.run.processes import usable_cores
from curiosft_cli.tools.doctor.finding import Asked, Finding


def python(_: Asked) -> Iterator[Finding]:
    """The version, against what the package supports."""
    try:
        wanted = metadata.metadata("curiosft")["Requires-Python"]
    except metadata.PackageNotFoundError:
        yield Finding(
            "python", "warning", f"{platform.python_version()}; curiosft is not installed", "pip install -e ."
        )
        return
    legal = SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    level = "ok" if legal else "error"
    yield Finding("python", level, platform.python_version(), "" if legal else f"Use Python {wanted}.")


def packages(asked: Asked) -> Iterator[Finding]:
    """Every package that is needed or has a pin, against the range that was tested."""
    missing, other, fine = [], [], 0
    trained = {"sft": asked.config.sft, "rl": asked.config.rl}
    adapters = any(settings.lora.rank and stage in asked.stages for stage, settings in trained.items())
    with suppress(metadata.PackageNotFoundError):
        for requirement in map(Requirement, metadata.requires("curiosft") or ()):
            extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
            needed = not extra or (requirement.name == "peft" and adapters)
            try:
                found = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                missing += [f"{requirement.name}{requirement.specifier}"] if needed else []
                continue
            if requirement.specifier.contains(found, prereleases=True):
                fine += 1
            else:
                other.append(f"{requirement.name} {found} (tested: {requirement.specifier})")
    if missing:
        fix = "pip install " + " ".join(f"'{name}'" for name in missing)
        yield Finding("packages", "error", f"missing: {', '.join(missing)}", fix)
    if other:
        yield Finding(
            "packages", "warning", f"outside the tested range: {', '.join(other)}", "Install a tested version."
        )
    if not missing and not other:
        yield Finding("packages", "ok", f"{fine} in the tested range")


def threads(asked: Asked) -> Iterator[Finding]:
    """Threads of a process and the load, against the cores."""
    cores, said = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    wanted = asked.config.launch.threads or (int(said) if said.isdigit() else cores)
    busy = os.getloadavg()[0]
    says = f"{wanted} for {cores} cores, load {busy:.1f}"
    if wanted > cores:
        yield Finding("threads", "warning", says, f"Set launch.threads or OMP_NUM_THREADS to at most {cores}.")
    elif busy > 2 * cores:
        yield Finding("threads", "warning", says, "Other processes use the cores; end them, or expect less speed.")
    else:
        yield Finding("threads", "ok", says)


def disk(asked: Asked, little_gib: float = 10.0) -> Iterator[Finding]:
    """Whether the folder of all runs can be written to, and its free space."""
    root = Path(asked.config.run.root).absolute()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(2**20))
    except OSError as error:
        yield Finding("disk", "error", f"cannot write to {there}: {error.strerror}", "Free space, or set run.root.")
        return
    free_gib = shutil.disk_usage(there).free / GIB
    level, fix = ("ok", "") if free_gib >= little_gib else ("warning", "A checkpoint may not fit: set run.root.")
    yield Finding("disk", level, f"{free_gib:.1f} GiB free in {there}", fix)


def memory(_: Asked, little_gib: float = 4.0) -> Iterator[Finding]:
    """Memory that is free, less where a container limits it."""
    free = main_memory().free
    if free is None:
        yield Finding("memory", "warning", "the system does not say how much is free", "Look at it by hand.")
        return
    level, fix = ("ok", "") if free / GIB >= little_gib else ("warning", "End other processes; use a small model.")
    yield Finding("memory", level, f"{free / GIB:.1f} GiB free", fix)


def shared_memory(_: Asked, little_gib: float = 1.0, folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Space in /dev/shm, through which processes of one machine talk."""
    if not folder.is_dir():
        yield Finding("shared memory", "warning", f"there is no {folder}", "Mount it, if several processes train.")
        return
    free_gib = shutil.disk_usage(folder).free / GIB
    fix = "" if free_gib >= little_gib else "Start the container with --shm-size=8g or --ipc=host."
    yield Finding("shared memory", "warning" if fix else "ok", f"{free_gib:.1f} GiB free in {folder}", fix)


def open_files(asked: Asked, own: int = 128, usual: int = 1024) -> Iterator[Finding]:
    """The limit of open files, against the connections to an endpoint."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = own
    if "rephrase" in asked.stages:
        needed = max(needed, own + asked.config.rephrase.concurrency)
    if "eval" in asked.stages and asked.config.eval.engine == "openai":
        needed = max(needed, own + asked.config.eval.concurrency)
    says = f"at most {soft} (hard limit {hard}), needed {needed}"
    if soft < needed:
        yield Finding("open files", asked.level("rephrase", "eval"), says, f"ulimit -n {max(needed, usual)}")
    elif soft < usual:
        yield Finding("open files", "warning", says, f"ulimit -n {usual}")
    else:
        yield Finding("open files", "ok", says)
