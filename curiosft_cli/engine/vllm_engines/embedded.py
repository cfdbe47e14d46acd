"""vLLM inside this process: one engine per training rank, which takes new weights as tensors."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.checks import check_more, check_prompts, fill_seeds
from curiosft_cli.engine.vllm_engines.process import cpu_step, process_group_kept, process_left_alone
from curiosft_cli.engine.vllm_engines.refusals import explained
from curiosft_cli.run.device import resolve_dtype
from curiosft_cli.run.errors import MISSING, CurioError

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import LLMEngine, RequestOutput, SamplingParams

    from curiosft_cli.engine.spec import EngineSpec

GIB = 1 << 30
CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the key-value cache on a CPU, the fewest that its attention takes. Completions of one prompt
share whole blocks: with vLLM's 128, up to 127 tokens of the prompt are computed anew for each of them."""
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Tensors do not cross a process border, so the engine must live in this one."""
GOOD_NEIGHBOUR = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""Unless the user says otherwise: threads go by OMP_NUM_THREADS instead of sharing one core; stdout is for results."""
INSTALL = (
    "Install it: pip install 'curiosft[gpu]' with a CUDA GPU, else "
    "pip install -r requirements/cpu.txt && pip install --no-deps -r requirements/cpu-vllm.txt"
)


State = Literal["ready", "asleep", "without weights", "broken by a failed hand-over of weights"]


def vllm_installed() -> bool:
    """Whether vLLM, of either kind, can be imported."""
    return importlib.util.find_spec("vllm") is not None


def require_vllm() -> None:
    """Raise a `CurioError` (exit code 3) with the way to install it when vLLM is missing."""
    if not vllm_installed():
        raise CurioError("vLLM is not installed", INSTALL, exit_code=MISSING)


class VllmEngine:
    """The `RolloutEngine` of choice: batches continuously, keeps shared prefixes, reloads in place.

    With WORLD_SIZE > 1 every rank must open one, at the same point of the program.

    Args:
        spec: the model.
        cpu_batched_tokens: most tokens in one forward pass on a CPU, at least `spec.max_model_len`.

    Raises:
        CurioError: vLLM is not installed (exit code 3), or refuses the settings (exit code 2).
    """

    def __init__(self, spec: EngineSpec, *, cpu_batched_tokens: int = 4096) -> None:
        require_vllm()
        os.environ.update(GOOD_NEIGHBOUR | os.environ | IN_PROCESS)
        import torch
        from vllm.platforms import current_platform

        options: dict[str, Any]
        if current_platform.is_cpu():
            options = _cpu_options(max(spec.max_model_len, cpu_batched_tokens), spec.cpu_kv_cache_gib)
        else:
            options = {"enable_sleep_mode": True, "gpu_memory_utilization": spec.gpu_memory_utilization}
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            options["distributed_executor_backend"] = "external_launcher"

        self._max_model_len = spec.max_model_len
        self._version = 0
        self._state: State = "ready"
        self._on_cpu = current_platform.is_cpu()
        self._cpu_step = cpu_step if self._on_cpu else nullcontext
        self._requests = 0
        self._seeds = random.Random(spec.seed)
        self._trainer_communicates = torch.distributed.is_initialized()
        self._live: LLMEngine | None = _start(
            model=str(spec.model),
            dtype=resolve_dtype(spec.dtype),
            logprobs_mode=f"{spec.logprobs}_logprobs",
            max_model_len=spec.max_model_len,
            hf_overrides=dict(spec.hf_overrides),
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            more=spec.vllm,
            **options,
        )

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `RolloutEngine.stream`; leaving the iterator early aborts what is still running.

        Raises:
            CurioError: a prompt is empty or fills the context; nothing was sent.
        """
        check_prompts(prompts, seeds, self._max_model_len)
        chosen = fill_seeds(seeds, len(prompts), self._seeds)
        return self._completions(prompts, [_sampling_params(sampling, seed, self._on_cpu) for seed in chosen])

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `RolloutEngine.score`: a prompt's log-probabilities are raw, whatever those of completions are."""
        if len(token_ids) < 2:
            return []
        from vllm import SamplingParams

        check_prompts([token_ids], None, self._max_model_len)
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        [(_, output)] = self._run([token_ids], [params])
        return _chosen(token_ids[1:], (output.prompt_logprobs or [])[1:])

    def load_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `RolloutEngine.load_weights`. An error on the way leaves the engine unusable.

        Raises:
            RuntimeError: completions are still running.
        """
        engine = self._engine("ready", "without weights")
        if engine.has_unfinished_requests():
            raise RuntimeError("weights cannot change while completions are running")
        self._state = "broken by a failed hand-over of weights"
        engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        if not engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept prefixes that were computed with the old weights")
        self._version = version
        self._state = "ready"

    def sleep(self) -> None:
        """Free weights and cache on a GPU; the next `load_weights` brings the weights back."""
        if not self._on_cpu:
            self._engine("ready").sleep(level=2)
            self._state = "asleep"

    def wake(self) -> None:
        """Take the memory again; the weights are undefined until `load_weights`."""
        if not self._on_cpu:
            self._engine("asleep").wake_up()
            self._state = "without weights"

    def close(self) -> None:
        """End the engine and give its memory back. The trainer's process group is left as it is."""
        engine, self._live = self._live, None
        if engine is None:
            return
        with process_group_kept() if self._trainer_communicates else nullcontext():
            engine.engine_core.shutdown()
        del engine
        gc.collect()

    def _engine(self, *legal: State) -> LLMEngine:
        if self._live is None or self._state not in legal:
            raise RuntimeError(f"this engine is {self._state if self._live else 'closed'}")
        return self._live

    def _completions(
        self, prompts: Sequence[Sequence[int]], params: list[SamplingParams]
    ) -> Iterator[tuple[int, Completion]]:
        version = self._version
        with closing(self._run(prompts, params)) as finished:
            for index, output in finished:
                yield index, _completion(output, version)

    def _run(
        self, prompts: Sequence[Sequence[int]], params: list[SamplingParams]
    ) -> Generator[tuple[int, RequestOutput]]:
        """Send all requests, step the engine, yield `(index, finished request)` as they finish."""
        from vllm import RequestOutput

        engine = self._engine("ready")
        if engine.has_unfinished_requests():
            raise RuntimeError("another stream of this engine is still open")
        first, self._requests = self._requests, self._requests + len(prompts)
        running: dict[str, int] = {}
        try:
            for index, (prompt, sampling) in enumerate(zip(prompts, params, strict=True)):
                name = str(first + index)
                engine.add_request(name, {"prompt_token_ids": list(prompt)}, sampling)
                running[name] = index
            while engine.has_unfinished_requests():
                with self._cpu_step():
                    outputs = engine.step()
                for output in outputs:
                    if isinstance(output, RequestOutput) and output.finished:
                        yield running.pop(output.request_id), output
        finally:
            if running:
                engine.abort_request(list(running))


def _cpu_options(batched_tokens: int, kv_cache_gib: float) -> dict[str, Any]:
    """Settings that a CPU needs: a seeded request whose prefill is split over two passes crashes there."""
    from curiosft_cli.engine.vllm_engines.cpu_nucleus import CpuNucleus

    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "logits_processors": [CpuNucleus],
        "max_num_batched_tokens": batched_tokens,
        "block_size": CPU_BLOCK_TOKENS,
        "kv_cache_memory_bytes": int(kv_cache_gib * GIB),
    }


def _start(more: Mapping[str, Any], **options: Any) -> LLMEngine:
    """Build vLLM's engine, with the settings that never change."""
    from vllm import EngineArgs, LLMEngine
    from vllm.usage.usage_lib import UsageContext

    settings: dict[str, Any] = {
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **options,
    }
    check_more(more, settings, [field.name for field in fields(EngineArgs)])
    arguments = EngineArgs(**settings, **more)
    try:
        with process_left_alone():
            return LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
    except (ValueError, RuntimeError) as error:
        if (line := explained(error)) is None:
            raise
        raise line from error


def _sampling_params(sampling: Sampling, seed: int, on_cpu: bool) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    nucleus: dict[str, Any] = {"top_p": sampling.top_p}
    if on_cpu:
        from curiosft_cli.engine.vllm_engines.cpu_nucleus import TOP_P

        nucleus = {"extra_args": {TOP_P: sampling.top_p}} if sampling.top_p < 1.0 else {}
    return SamplingParams(
        temperature=sampling.temperature,
        **nucleus,
        top_k=-1,
        max_tokens=sampling.max_tokens,
        seed=seed,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=True,  # the caller's end tokens and no others
        logprobs=0 if sampling.with_logprobs else None,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(output: RequestOutput, version: int) -> Completion:
    sample = output.outputs[0]
    tokens = tuple(sample.token_ids)
    reason: Literal["stop", "length"] = "stop" if sample.finish_reason == "stop" else "length"
    logprobs = () if sample.logprobs is None else tuple(_chosen(tokens, sample.logprobs))
    return Completion(tokens, logprobs, reason, version)


def _chosen(tokens: Sequence[int], tables: Any) -> list[float]:
    """Look each token up by its id in vLLM's table of its position."""
    return [table[token].logprob for token, table in zip(tokens, tables, strict=True)]
