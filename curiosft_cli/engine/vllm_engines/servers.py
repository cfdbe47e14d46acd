"""vLLM servers as one engine: prompts spread over them, new weights through a folder that all of them can read.

Each server is started by hand, on a private network or on loopback, since its routes let a caller change the weights:

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model DIR --dtype float32 --host 127.0.0.1

The folder is the same on CPU and GPU; `nccl.py` is the other way.
"""

from __future__ import annotations

import json
import os
import random
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.engine.base import Completion, LogprobKind, Sampling
from curiosft_cli.engine.checks import check_prompts, fill_seeds
from curiosft_cli.engine.vllm_engines.nccl_transfer import NcclTransfer
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import folder_in_one_step

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.engine.weights import FullState

API_KEY = "VLLM_API_KEY"
"""Environment variable with the servers' key, if they ask for one; never stored."""


class RemoteEngine:
    """A `RolloutEngine` of one or more vLLM servers.

    Args:
        urls: base URLs, e.g. "http://127.0.0.1:8000".
        spec: context, seed and log-probabilities, which must be those of the servers.
        weights: folder for new weights, readable by every server under this path.
        writer: whether this process writes the weights and tells the servers; one rank does.
        over_nccl: the trainer's weights, to be broadcast instead of written to the folder.
        concurrency: requests under way per server.
        limit_s: seconds that one answer may take.

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
        over_nccl: FullState | None = None,
        concurrency: int = 128,
        limit_s: float = 3600.0,
    ) -> None:
        self._max_model_len = spec.max_model_len
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._weights, self._writer = weights.resolve(), writer
        self._limit_s, self._version = limit_s, 0
        self._seeds = random.Random(spec.seed)
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._names = [self._ask(url, "/v1/models")["data"][0]["id"] for url in self._urls]
        for server in range(len(self._urls)):
            self._check_logprobs(server, spec.logprobs)
        self._nccl: NcclTransfer | None = None
        if over_nccl is not None:
            workers = [self._ask(url, "/get_world_size")["world_size"] for url in self._urls]
            self._nccl = NcclTransfer(self._urls, workers, over_nccl, sender=writer, limit_s=limit_s)
        self._workers = ThreadPoolExecutor(concurrency * len(self._urls), thread_name_prefix="rollout")

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `RolloutEngine.stream`; leaving the iterator early drops what was not sent yet.

        Raises:
            CurioError: a prompt is empty or fills the context; nothing was sent.
        """
        check_prompts(prompts, seeds, self._max_model_len)
        chosen = fill_seeds(seeds, len(prompts), self._seeds)
        return self._completions(prompts, sampling, chosen)

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `RolloutEngine.score`."""
        if len(token_ids) < 2:
            return []
        check_prompts([token_ids], None, self._max_model_len)
        answer = self._complete(0, list(token_ids), {"max_tokens": 1, "prompt_logprobs": 0})
        tables = answer["prompt_logprobs"][1:]
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
                self._ask(url, "/reset_prefix_cache", {})
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
            self._ask(url, "/collective_rpc", call)

    def sleep(self) -> None:
        """The servers have memory of their own."""

    def wake(self) -> None:
        """See `sleep`."""

    def close(self) -> None:
        """Stop asking; the servers stay up."""
        if self._nccl is not None:
            self._nccl.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _completions(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        version = self._version
        sent: dict[Future[dict[str, Any]], int] = {}
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            request = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": min(sampling.max_tokens, self._max_model_len - len(prompt)),
                "seed": seed,
                "stop_token_ids": list(sampling.stop_token_ids),
                "ignore_eos": True,  # the caller's end tokens and no others
                "logprobs": 1,
                "return_token_ids": True,
            }
            sent[self._workers.submit(self._complete, index % len(self._urls), list(prompt), request)] = index
        try:
            for done in as_completed(sent):
                choice = done.result()
                logprobs = tuple(choice["logprobs"]["token_logprobs"])
                reason = "stop" if choice["finish_reason"] == "stop" else "length"
                yield sent[done], Completion(tuple(choice["token_ids"]), logprobs, reason, version)
        finally:
            for future in sent:
                future.cancel()

    def _check_logprobs(self, server: int, wanted: LogprobKind) -> None:
        """Where one token alone is allowed, its processed log-probability is 0 and its raw one is not."""
        request = {"max_tokens": 1, "logprobs": 1, "allowed_token_ids": [0], "temperature": 1.0}
        [seen] = self._complete(server, [0], request)["logprobs"]["token_logprobs"]
        found: LogprobKind = "processed" if seen == 0.0 else "raw"
        if found != wanted:
            raise CurioError(
                f"the vLLM server {self._urls[server]} reports {found} log-probabilities, this run needs {wanted} ones",
                f"Start it with --logprobs-mode {wanted}_logprobs (rl.temperature = 1 needs raw ones, any other "
                "processed ones).",
            )

    def _complete(self, server: int, prompt: list[int], request: Mapping[str, Any]) -> dict[str, Any]:
        body = {"model": self._names[server], "prompt": prompt, **request}
        return self._ask(self._urls[server], "/v1/completions", body)["choices"][0]

    def _ask(self, url: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._direct.open(urllib.request.Request(url + route, data, headers), timeout=self._limit_s) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read()[:300].decode(errors="replace")
            raise CurioError(
                f"the vLLM server {url} answers {route} with status {error.code}: {said}",
                "Start it with VLLM_SERVER_DEV_MODE=1, the same model, and a context that is long enough.",
                MISSING,
            ) from None
        except OSError as error:
            raise CurioError(
                f"the vLLM server {url} does not answer: {error}", "Start it, or correct rl.servers.", MISSING
            ) from None
        return json.loads(text) if text.strip() else None
