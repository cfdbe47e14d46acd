"""vLLM inside this process: one engine per training rank, which takes new weights as tensors."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.device import Dtype, resolve_dtype
from curiosft_cli.engine.requests import check_prompts
from curiosft_cli.run.errors import MISSING, CurioError

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import RequestOutput, SamplingParams

GIB = 1 << 30
# The engine must live in this process, since tensors do not cross a process border; `nobind` leaves threads to
# OMP_NUM_THREADS instead of pinning every engine to the same core; results own stdout, so logs go to stderr.
REQUIRED_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
DEFAULT_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def vllm_installed() -> bool:
    """Whether vLLM, of either kind, can be imported."""
    return importlib.util.find_spec("vllm") is not None


class VllmEngine:
    """The `RolloutEngine` of choice.

    Args:
        model_dir: folder in Hugging Face format; no tokenizer is needed.
        max_model_len: tokens of prompt and completion together.
        dtype: "auto" is bfloat16 where the hardware has it.
        seed: of requests that bring none.
        kv_cache_gib: memory of the key-value cache in GiB; None takes `gpu_memory_utilization` on a GPU and
            `cpu_kv_cache_gib` on a CPU.
        cpu_kv_cache_gib: see `kv_cache_gib` (vLLM's own default is most of the machine).
        gpu_memory_utilization: share of the GPU's memory for weights, activations and cache together.
        max_num_seqs: most completions that grow at the same time; None is vLLM's choice.
        threads: OpenMP threads on a CPU; None leaves torch's number.
        enforce_eager: no compilation and CUDA graphs; None is eager on a CPU only, where they cost a minute.
        hf_overrides: keys that replace those of the model's `config.json`.
        trust_remote_code: run code found beside the weights.

    Raises:
        CurioError: vLLM is not installed (exit code 3).
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        max_model_len: int,
        dtype: Dtype = "auto",
        seed: int = 0,
        kv_cache_gib: float | None = None,
        cpu_kv_cache_gib: float = 1.0,
        gpu_memory_utilization: float = 0.9,
        max_num_seqs: int | None = None,
        threads: int | None = None,
        enforce_eager: bool | None = None,
        hf_overrides: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        _require_vllm()
        os.environ.update(REQUIRED_ENVIRONMENT)
        for name, value in DEFAULT_ENVIRONMENT.items():
            os.environ.setdefault(name, value)

        import torch
        from vllm import EngineArgs
        from vllm.platforms import current_platform

        self.max_model_len = max_model_len
        self.weights_version = 0
        self._on_gpu = not current_platform.is_cpu()
        self._streams = 0
        self._broken: str | None = None
        self._made_process_group = not torch.distributed.is_initialized()
        options: dict[str, Any] = {}
        if self._on_gpu:
            options |= {"enable_sleep_mode": True, "gpu_memory_utilization": gpu_memory_utilization}
        else:
            kv_cache_gib = cpu_kv_cache_gib if kv_cache_gib is None else kv_cache_gib
            # A seeded request whose prefill is split crashes on a CPU: its random generator cannot step back.
            options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(max_model_len, 4096)}
        if kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(kv_cache_gib * GIB)
        if max_num_seqs is not None:
            options["max_num_seqs"] = max_num_seqs
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            options["distributed_executor_backend"] = "external_launcher"
        arguments = EngineArgs(
            model=str(model_dir),
            skip_tokenizer_init=True,
            trust_remote_code=trust_remote_code,
            dtype=resolve_dtype(dtype),
            max_model_len=max_model_len,
            seed=seed,
            enforce_eager=not self._on_gpu if enforce_eager is None else enforce_eager,
            hf_overrides=dict(hf_overrides or {}),
            generation_config="vllm",
            logprobs_mode="raw_logprobs",
            enable_prefix_caching=True,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **options,
        )
        self._engine: Any = _start(arguments, threads)

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `RolloutEngine.stream`: all requests are added, then the engine is stepped."""
        self._check_alive()
        check_prompts(prompts, seeds, self.max_model_len)
        self._streams += 1
        waiting = {f"{self._streams}-{index}": index for index in range(len(prompts))}
        for name, index in waiting.items():
            params = _sampling_params(sampling, None if seeds is None else seeds[index])
            self._engine.add_request(name, {"prompt_token_ids": list(prompts[index])}, params)
        try:
            while waiting:
                for output in self._engine.step():
                    if output.finished and output.request_id in waiting:
                        yield waiting.pop(output.request_id), self._completion(output)
        finally:
            if waiting:  # the caller went away
                self._engine.abort_request(list(waiting))

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `RolloutEngine.score`."""
        from vllm import SamplingParams

        self._check_alive()
        check_prompts([token_ids], None, self.max_model_len)
        self._streams += 1
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        self._engine.add_request(f"{self._streams}-score", {"prompt_token_ids": list(token_ids)}, params)
        finished: list[RequestOutput] = []
        while not finished:
            finished = [output for output in self._engine.step() if output.finished]
        scored = finished[0].prompt_logprobs or []
        return [row[token].logprob for row, token in zip(scored[1:], token_ids[1:], strict=True) if row]

    def load_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `RolloutEngine.load_weights`. A reload that raises leaves the engine unusable.

        Raises:
            RuntimeError: cached prefixes of the old weights could not be dropped.
        """
        self._check_alive()
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        except BaseException as error:
            self._broken = f"loading version {version} failed: {error}"
            raise
        if not self._engine.reset_prefix_cache():
            self._broken = "prefixes computed with the old weights are still cached"
            raise RuntimeError(self._broken)
        self.weights_version = version

    def sleep(self) -> None:
        """See `RolloutEngine.sleep`."""
        if self._on_gpu:
            self._engine.sleep(level=2)

    def wake(self) -> None:
        """See `RolloutEngine.wake`."""
        if self._on_gpu:
            self._engine.wake_up()

    def close(self) -> None:
        """See `RolloutEngine.close`."""
        if self._engine is None:
            return
        self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        if self._made_process_group:
            from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

            destroy_model_parallel()
            destroy_distributed_environment()

    def _check_alive(self) -> None:
        if self._engine is None or self._broken:
            raise RuntimeError(f"this engine cannot be used: {self._broken or 'it is closed'}")

    def _completion(self, output: RequestOutput) -> Completion:
        sampled = output.outputs[0]
        rows = sampled.logprobs or []
        return Completion(
            token_ids=tuple(sampled.token_ids),
            logprobs=tuple(row[token].logprob for row, token in zip(rows, sampled.token_ids, strict=True)),
            finish_reason="length" if sampled.finish_reason == "length" else "stop",
            weights_version=self.weights_version,
        )


def _sampling_params(sampling: Sampling, seed: int | None) -> SamplingParams:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=-1,
        max_tokens=sampling.max_tokens,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=True,  # the stop tokens above are the whole list
        seed=seed,
        logprobs=0,
        detokenize=False,
    )


def _start(arguments: Any, threads: int | None) -> Any:
    import torch
    from vllm import LLMEngine

    if threads is not None:
        torch.set_num_threads(threads)  # vLLM makes this a no-op for the rest of the process
    return LLMEngine.from_engine_args(arguments)


def _require_vllm() -> None:
    if not vllm_installed():
        raise CurioError(
            "vLLM is not installed",
            'Install it (pip install "curiosft[gpu]", or docs/install.md for CPUs), or choose engine = "transformers".',
            MISSING,
        )
