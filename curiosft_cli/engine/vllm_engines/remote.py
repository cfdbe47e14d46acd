"""vLLM servers as one engine: prompts are spread over them, new weights go through a folder that all of them can read.

Each server is started by hand, on a private network or on loopback, since its routes let a caller change the weights:

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model DIR --dtype float32 --host 127.0.0.1

The folder is the same on CPU and GPU; `nccl_transfer.py` is the other way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, LogprobKind, Sampling
from curiosft_cli.engine.endpoint.client import Endpoint, EndpointClient
from curiosft_cli.engine.endpoint.completions import complete_all, completion_request
from curiosft_cli.engine.endpoint.outcomes import first_choice
from curiosft_cli.engine.prompt_checks import check_prompts, fill_seeds
from curiosft_cli.engine.vllm_engines.nccl_transfer import NcclTransfer
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import folder_in_one_step

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.engine.weight_handover import Weights

API_KEY = "VLLM_API_KEY"
"""Environment variable with the servers' key, if they demand one; never stored."""
ADVICE = "Start it with VLLM_SERVER_DEV_MODE=1, the same model and a context that is long enough, or fix rl.servers."


class RemoteEngine:
    """A `RolloutEngine` of one or more vLLM servers.

    Args:
        urls: base URLs, e.g. "http://127.0.0.1:8000".
        spec: context, seed and log-probabilities, which must be those of the servers.
        weights: folder for new weights, readable by every server under this path.
        writer: whether this process writes the weights and has the servers load them; one rank does.
        over_nccl: the trainer's weights, to be broadcast instead of written to the folder.
        concurrency: requests in flight per server.
        limit_s: longest wait for one response, in seconds.

    Raises:
        CurioError: a server does not answer (exit code 3), or reports other log-probabilities (exit code 2).
    """

    def __init__(
        self,
        urls: Sequence[str],
        spec: EngineSpec,
        *,
        weights: Path,
        writer: bool = True,
        over_nccl: Weights | None = None,
        concurrency: int = 128,
        limit_s: float = 3600.0,
    ) -> None:
        self._max_model_len = spec.max_model_len
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._weights, self._writer = weights.resolve(), writer
        self._concurrency, self._limit_s, self._version = concurrency, limit_s, 0
        self._seeds = random.Random(spec.seed)
        self._models = [self._call(url, "/v1/models")["data"][0]["id"] for url in self._urls]
        for server in range(len(self._urls)):
            self._check_logprobs(server, spec.logprobs)
        self._nccl: NcclTransfer | None = None
        if over_nccl is not None:
            workers = [self._call(url, "/get_world_size")["world_size"] for url in self._urls]
            self._nccl = NcclTransfer(self._urls, workers, over_nccl, sender=writer, limit_s=limit_s)

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `RolloutEngine.stream`; leaving the iterator early ends all requests.

        Raises:
            CurioError: a prompt is empty or fills the context; nothing was sent.
        """
        check_prompts(prompts, seeds, self._max_model_len)
        version, bodies, chosen = self._version, [], fill_seeds(seeds, len(prompts), self._seeds)
        for model, prompt, seed in zip(cycle(self._models), prompts, chosen, strict=False):
            request = completion_request(model, prompt, seed, sampling)
            longest = min(sampling.max_tokens, self._max_model_len - len(prompt))
            # ignore_eos: the caller's end tokens and no others
            bodies.append({**request, "max_tokens": longest, "ignore_eos": True, "logprobs": 1})

        def read(response: Any) -> Completion:
            choice = first_choice(response)
            logprobs = tuple(choice["logprobs"]["token_logprobs"])
            reason = "stop" if choice["finish_reason"] == "stop" else "length"
            return Completion(tuple(choice["token_ids"]), logprobs, reason, version)

        clients = [self._client(url) for url in self._urls]
        return complete_all(clients, "/v1/completions", bodies, read)

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `RolloutEngine.score`."""
        if len(token_ids) < 2:
            return []
        check_prompts([token_ids], None, self._max_model_len)
        choice = self._complete(0, {"prompt": list(token_ids), "max_tokens": 1, "prompt_logprobs": 0})
        tables = choice["prompt_logprobs"][1:]
        return [table[str(token)]["logprob"] for token, table in zip(token_ids[1:], tables, strict=True)]

    def load_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `RolloutEngine.load_weights`; over nccl they are those of the model that the engine was opened with."""
        if self._nccl is not None:
            self._nccl.send()
        elif self._writer:
            self._write(weights)
        else:
            for _ in weights:  # sharded tensors are gathered by all ranks together
                pass
        if self._writer:
            for url in self._urls:
                self._call(url, "/reset_prefix_cache", {})
        self._version = version

    def _write(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Write the weights, complete or not at all, and have every server read them."""
        from safetensors.torch import save_file

        # Tied tensors share storage, which the format refuses.
        state = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        with folder_in_one_step(self._weights) as folder:
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(self._weights)}}
        for url in self._urls:
            self._call(url, "/collective_rpc", call)

    def sleep(self) -> None:
        """The servers have memory of their own."""

    def wake(self) -> None:
        """See `sleep`."""

    def close(self) -> None:
        """End the weight transfer; the servers stay up."""
        if self._nccl is not None:
            self._nccl.close()

    def _check_logprobs(self, server: int, wanted: LogprobKind) -> None:
        """Where one token alone is allowed, its processed log-probability is 0 and its raw one is not."""
        request = {"prompt": [0], "max_tokens": 1, "logprobs": 1, "allowed_token_ids": [0], "temperature": 1.0}
        [logprob] = self._complete(server, request)["logprobs"]["token_logprobs"]
        found: LogprobKind = "processed" if logprob == 0.0 else "raw"
        if found != wanted:
            raise CurioError(
                f"the vLLM server {self._urls[server]} reports {found} log-probabilities, this run needs {wanted} ones",
                f"Start it with --logprobs-mode {wanted}_logprobs (rl.temperature = 1 needs raw ones, any other "
                "processed ones).",
            )

    def _complete(self, server: int, request: Mapping[str, Any]) -> dict[str, Any]:
        body = {"model": self._models[server], **request}
        return self._call(self._urls[server], "/v1/completions", body)["choices"][0]

    def _call(self, url: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of one response. A call that changes a server is not sent twice."""

        async def request() -> Any:
            async with self._client(url, max_attempts=1) as client:
                return await client.require(route, body, lambda response: response)

        return asyncio.run(request())

    def _client(self, url: str, max_attempts: int = 6) -> EndpointClient:
        endpoint = Endpoint(url, "", API_KEY, self._concurrency, self._limit_s, max_attempts=max_attempts, private=True)
        return EndpointClient(endpoint, outage=1, advice=ADVICE)
