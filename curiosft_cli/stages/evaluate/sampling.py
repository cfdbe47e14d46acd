"""Drawing the samples of an evaluation, from a model in this process or from an endpoint.

Every completion is saved as it finishes, so a killed evaluation loses only what was in flight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.prompts import messages
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.engine.endpoint.completions import CompletionsSampler
from curiosft_cli.evaluation.fingerprint import model_identity
from curiosft_cli.evaluation.samples import SAMPLES, Generations, Sample, sample_row
from curiosft_cli.evaluation.summary import PROMPT_TOO_LONG
from curiosft_cli.evaluation.tasks import BenchmarkTask, prefill
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import JsonLines, unpack_jsonl
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.benchmark_sampling import draw, evaluation_sampling, seeds_of
from curiosft_cli.stages.engine_spec import engine_spec
from curiosft_cli.stages.evaluate.chat import ChatSampler
from curiosft_cli.stages.evaluate.devices import open_on_all_devices, uses_vllm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.engine.base import Sampling, TokenSampler

Missing = list[tuple[int, int]]
Saved = Iterator[tuple[int, Sample]]


@dataclass(frozen=True)
class Job:
    """One benchmark for one checkpoint.

    Attributes:
        task: its questions and how often each is sampled.
        prompts: token ids, one per question; empty for a chat, whose endpoint tokenises.
        folder: of its results.
    """

    task: BenchmarkTask
    prompts: list[list[int]]
    folder: Path

    @property
    def file(self) -> Path:
        """The saved samples, while they are drawn and graded."""
        return self.folder / SAMPLES

    def generations(self) -> Generations:
        """The saved samples, indexed."""
        return Generations(self.file, self.task.problems)


def encoded(config: Config, task: BenchmarkTask, tokenizer: PreTrainedTokenizerBase | None) -> list[list[int]]:
    """The prompt of each question in token ids; empty without a tokenizer."""
    if tokenizer is None:
        return []
    from curiosft_cli.train.encode import PromptFormat, encode_prompt

    style = PromptFormat.from_config(config.model)
    return [encode_prompt(tokenizer, problem, style) for problem in task.problems]


def sample(
    config: Config,
    path: str,
    tokenizer: PreTrainedTokenizerBase | None,
    jobs: list[Job],
    console: Console,
    reference: str,
) -> None:
    """Draw the completions that are not saved yet and append each as it finishes.

    Args:
        config: of the run.
        path: the checkpoint, a folder or hub id.
        tokenizer: of the checkpoint; None samples from a chat endpoint.
        jobs: what to sample.
        console: shows progress.
        reference: how the configuration calls the checkpoint.
    """
    for job in jobs:
        unpack_jsonl(job.file)
    missing = {job.task.name: job.generations().missing(job.task.samples) for job in jobs}
    if tokenizer is None:
        for job in jobs:
            if wanted := missing[job.task.name]:
                _save(config, job, wanted, _from_chat(config, path, job, wanted), console, reference)
        return
    for job in jobs:
        missing[job.task.name] = _without_long_prompts(config, job, missing[job.task.name], console)
    if any(missing.values()):
        _sample_here(config, path, tokenizer, jobs, missing, console, reference)


def _sample_here(
    config: Config,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    jobs: list[Job],
    missing: dict[str, Missing],
    console: Console,
    reference: str,
) -> None:
    from curiosft_cli.train.encode import stop_token_ids

    longest = max(len(job.prompts[question]) for job in jobs for question, _ in missing[job.task.name])
    sampling = evaluation_sampling(config.eval, stop_token_ids(tokenizer, path))
    # Beside the results of all checkpoints.
    log_file = jobs[0].folder.parents[1] / "server.log"
    engine = _open(config, path, tokenizer, longest + config.eval.max_completion_length, log_file)
    try:
        for job in jobs:
            wanted = missing[job.task.name]
            drawn = _from_tokens(config, engine, tokenizer, job, wanted, sampling)
            _save(config, job, wanted, drawn, console, reference)
    finally:
        engine.close()


def _save(config: Config, job: Job, missing: Missing, drawn: Saved, console: Console, reference: str) -> None:
    """Append what is drawn, `(index into missing, sample)`, in the order in which it comes."""
    prefilled = prefill(config) != ""
    with JsonLines(job.file) as file:
        for count, (index, found) in enumerate(drawn, start=1):
            question, j = missing[index]
            found = replace(found, prefilled=prefilled if found.prefilled is None else found.prefilled)
            file.append(sample_row(job.task.problems[question].id, j, found))
            console.progress(count, len(missing), f"{reference} on {job.task.name}: completions")


def _from_tokens(
    config: Config,
    engine: TokenSampler,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    missing: Missing,
    sampling: Sampling,
) -> Saved:
    from curiosft_cli.train.encode import decode_completion

    for index, completion in draw(engine, job.task, job.prompts, missing, sampling, config.run.seed):
        ids = completion.token_ids
        yield index, Sample(decode_completion(tokenizer, ids), len(ids), completion.finish_reason, ids)


def _from_chat(config: Config, path: str, job: Job, missing: Missing) -> Saved:
    system, prefix = config.model.system_prompt, config.model.question_prefix
    chats = [messages(job.task.problems[question], system=system, prefix=prefix) for question, _ in missing]
    saved = job.task.samples * len(job.task.problems) - len(missing)
    sampler = ChatSampler(_endpoint(config, path), answered=saved)
    seeds = seeds_of(job.task, missing, config.run.seed)
    yield from sampler.stream(chats, evaluation_sampling(config.eval), seeds)


def _without_long_prompts(config: Config, job: Job, missing: Missing, console: Console) -> Missing:
    """What can be sampled. A prompt above `eval.max_prompt_length` is saved as an empty sample and scores 0."""
    longest = config.eval.max_prompt_length
    if longest is None:
        return missing
    fitting = [(question, j) for question, j in missing if len(job.prompts[question]) <= longest]
    too_long = [(question, j) for question, j in missing if len(job.prompts[question]) > longest]
    if too_long:
        questions = len({question for question, _ in too_long})
        console.say(f"{job.task.name}: {questions} prompts have more than {longest} tokens; they score 0")
        with JsonLines(job.file) as file:
            for question, j in too_long:
                file.append(sample_row(job.task.problems[question].id, j, Sample("", 0, PROMPT_TOO_LONG)))
    return fitting


def _open(config: Config, path: str, tokenizer: PreTrainedTokenizerBase, needed: int, log_file: Path) -> TokenSampler:
    """The engine that samples; prompt and completion together have up to `needed` tokens."""
    from curiosft_cli.train.load import check_context

    settings = config.eval
    if settings.engine == "openai":
        encode = partial(tokenizer.encode, add_special_tokens=False)
        return CompletionsSampler(_endpoint(config, path), encode)
    context = check_context(path, config.model, needed)
    spec = engine_spec(config, path, context, settings, dtype=settings.precision)
    return open_on_all_devices(settings.engine, config, spec, log_file)


def _endpoint(config: Config, path: str) -> Endpoint:
    settings = config.eval
    return Endpoint(
        settings.base_url or "",
        settings.endpoint_model or path,
        settings.api_key_env,
        settings.concurrency,
        settings.request_timeout_s,
    )


def identity(config: Config, path: str) -> dict[str, Any]:
    """The model of the samples: weights by digest or commit, or an endpoint and its name for the model."""
    if config.eval.engine == "openai":
        named = {"endpoint": config.eval.base_url, "name": config.eval.endpoint_model or path}
        return {**named, "chat": True} if config.eval.endpoint == "chat" else named
    return model_identity(path, config.model.revision)


def check_endpoint(config: Config) -> None:
    """Refuse settings that do not fit an endpoint.

    Raises:
        CurioError: the address is missing, several checkpoints share one, or a chat cannot have one of them.
    """
    settings = config.eval
    if settings.vllm and settings.engine in ("transformers", "openai"):
        raise CurioError(
            f"eval.vllm sets {', '.join(settings.vllm)}, but eval.engine is {settings.engine}", "Leave it out."
        )
    if (settings.copies or 1) > 1 and not uses_vllm(settings):
        raise CurioError(
            f"eval.copies is {settings.copies}, but eval.engine is {settings.engine}", "Set eval.engine=vllm."
        )
    if settings.endpoint == "chat" and settings.engine != "openai":
        raise CurioError(f"eval.endpoint is chat, eval.engine is {settings.engine}", "Set eval.engine=openai.")
    if settings.endpoint == "chat" and settings.max_prompt_length is not None:
        raise CurioError(
            f"eval.max_prompt_length is {settings.max_prompt_length}, but eval.endpoint is chat: its prompts have no "
            "token count here",
            "Leave eval.max_prompt_length out; what the endpoint refuses scores 0 and is counted.",
        )
    if settings.engine != "openai":
        return
    if not config.eval.base_url:
        raise CurioError("eval.engine is openai, eval.base_url is none", "Set eval.base_url=http://HOST:PORT/v1.")
    if len(config.eval.checkpoints) > 1:
        raise CurioError(
            f"eval.engine is openai and eval.checkpoints names {len(config.eval.checkpoints)} models",
            "An endpoint serves one: name one checkpoint, and use another eval.name for the next.",
        )
