"""Several copies of one model as one sampler: vLLM's data parallelism, behind a server for this process alone."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.endpoint.client import Endpoint, EndpointClient
from curiosft_cli.engine.endpoint.completions import complete_all, completion_request
from curiosft_cli.engine.endpoint.outcomes import first_choice
from curiosft_cli.engine.prompt_checks import check_prompts, fill_seeds
from curiosft_cli.engine.vllm_engines.local_server import serve

if TYPE_CHECKING:
    from curiosft_cli.engine.spec import EngineSpec

NAME = "copies"


class CopiesEngine:
    """A `TokenSampler`. It draws what one embedded engine draws, seed for seed.

    Args:
        spec: the model.
        copies: how many, each on devices of its own.
        log_file: of the server.
        concurrency: requests in flight per copy; vLLM's own bound is the same or lower.
        limit_s: longest wait for one response, in seconds.
        start_limit_s: seconds until the server must answer; compiling a large model takes minutes.

    Raises:
        CurioError: exit code 3 when vLLM is missing or the server does not come up.
    """

    def __init__(
        self,
        spec: EngineSpec,
        copies: int,
        *,
        log_file: Path,
        concurrency: int = 256,
        limit_s: float = 7200.0,
        start_limit_s: float = 1800.0,
    ) -> None:
        self._max_model_len, self._seeds = spec.max_model_len, random.Random(spec.seed)
        key = secrets.token_urlsafe()
        # The model's own generation_config.json would change the sampling.
        spec = replace(spec, vllm={"generation_config": "vllm", **spec.vllm})
        self._server = ExitStack()
        url = self._server.enter_context(
            serve(spec, name=NAME, log_file=log_file, api_key=key, copies=copies, start_limit_s=start_limit_s)
        )
        endpoint = Endpoint(url, NAME, concurrency=copies * concurrency, timeout_s=limit_s, private=True, key=key)
        self._client = EndpointClient(endpoint, outage=1, advice=f"The server's log is {log_file}")

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `TokenSampler.stream`.

        Raises:
            CurioError: a prompt is empty or fills the context, and nothing was sent; or, with exit code 3, the server
                failed, and what was yielded counts.
        """
        check_prompts(prompts, seeds, self._max_model_len)
        bodies = []
        for prompt, seed in zip(prompts, fill_seeds(seeds, len(prompts), self._seeds), strict=True):
            longest = min(sampling.max_tokens, self._max_model_len - len(prompt))
            request = completion_request(NAME, prompt, seed, sampling)
            bodies.append({**request, "max_tokens": longest, "ignore_eos": True})  # the caller's end tokens alone

        return complete_all([self._client], "/completions", bodies, _read)

    def close(self) -> None:
        """End the server and all its processes."""
        self._server.close()


def _read(response: Any) -> Completion:
    choice = first_choice(response)
    return Completion(tuple(choice["token_ids"]), (), "stop" if choice["finish_reason"] == "stop" else "length")
