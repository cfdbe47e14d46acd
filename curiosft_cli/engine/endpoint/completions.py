"""Sampling from an OpenAI-compatible endpoint that serves the checkpoint: token ids in, token ids or text out.

It asks for plain completions, not for chat: the prompt is exactly the one that an embedded engine gets, the prefilled
think tag included. vLLM and SGLang return the tokens; where only text comes back it is tokenised again.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.checks import fill_seeds
from curiosft_cli.engine.endpoint.transport import proxy_for, read_key, retry_after_s
from curiosft_cli.run.errors import MISSING, CurioError

PASSING = frozenset({408, 409, 425, 429})
SERVER_ERRORS = 500

Waiting = queue.SimpleQueue[tuple[int, Mapping[str, Any]]]
Finished = queue.SimpleQueue[tuple[int, Completion | Exception]]


@dataclass(frozen=True)
class Endpoint:
    """Where the model is served and how patiently to ask.

    Attributes:
        base_url: for example http://127.0.0.1:8000/v1, without credentials.
        model: the model's name there.
        api_key_env: environment variable with the key; only a loopback address may do without.
        concurrency: requests in flight.
        timeout_s: longest silence within one request, in seconds.
        max_attempts: tries of one request.
        backoff_s: first wait before a new try, in seconds; doubled every time.
        longest_backoff_s: bound of that wait.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 64
    timeout_s: float = 1800.0
    max_attempts: int = 6
    backoff_s: float = 1.0
    longest_backoff_s: float = 60.0


class OpenAIEngine:
    """A `Sampler` over HTTP.

    Args:
        endpoint: see above.
        encode: tokenises a text, for an endpoint that returns no token ids.
        seed: of the requests that bring none.

    Raises:
        CurioError: the address is not one (exit code 2), or the key is missing (exit code 3).
    """

    def __init__(self, endpoint: Endpoint, encode: Callable[[str], list[int]], *, seed: int = 0) -> None:
        self._endpoint, self._encode = endpoint, encode
        self._secret = read_key(endpoint.base_url, endpoint.api_key_env)
        self._url = endpoint.base_url.rstrip("/") + "/completions"
        proxy = proxy_for(endpoint.base_url)
        proxies = {scheme: proxy for scheme in ("http", "https")} if proxy else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        self._seeds = random.Random(seed)
        self._stopped = threading.Event()

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `Sampler.stream`. A fault of the moment is tried again.

        Raises:
            CurioError: exit code 3 when the endpoint refuses, or keeps failing; what was yielded counts.
        """
        chosen = fill_seeds(seeds, len(prompts), self._seeds)
        bodies = [self._body(prompt, sampling, seed) for prompt, seed in zip(prompts, chosen, strict=True)]
        return self._completions(bodies)

    def close(self) -> None:
        """Let no request be tried again."""
        self._stopped.set()

    def _completions(self, bodies: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Completion]]:
        waiting: Waiting = queue.SimpleQueue()
        finished: Finished = queue.SimpleQueue()
        for item in enumerate(bodies):
            waiting.put(item)
        for _ in range(min(self._endpoint.concurrency, len(bodies))):
            # Daemons: whoever interrupts the process does not wait for answers that are still on their way.
            threading.Thread(target=self._work, args=(waiting, finished), daemon=True).start()
        try:
            for _ in bodies:
                index, outcome = finished.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield index, outcome
        except BaseException:
            self._stopped.set()
            raise

    def _work(self, waiting: Waiting, finished: Finished) -> None:
        """Take one request after the other until none is left, or the stream was."""
        while not self._stopped.is_set():
            try:
                index, body = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((index, self._complete(body)))
            except Exception as error:  # raised again where the stream is read
                finished.put((index, error))

    def _body(self, prompt: Sequence[int], sampling: Sampling, seed: int) -> dict[str, Any]:
        return {
            "model": self._endpoint.model,
            "prompt": list(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            # Beyond OpenAI's own keys; servers of open models know them.
            "stop_token_ids": list(sampling.stop_token_ids),
            "skip_special_tokens": False,
            "return_token_ids": True,
        }

    def _complete(self, body: Mapping[str, Any]) -> Completion:
        tries = 0
        while True:
            tries += 1
            wait_s = 0.0
            try:
                return self._read(self._send(body))
            except urllib.error.HTTPError as error:
                what = f"{error.code}: {self._reason(error)}"
                if error.code not in PASSING and error.code < SERVER_ERRORS:
                    raise self._gave_up(f"refuses ({what})") from None
                wait_s = retry_after_s(error.headers.get("Retry-After"), time.time())
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                what = f"{type(error).__name__}: {error}"
            if tries >= self._endpoint.max_attempts:
                raise self._gave_up(f"keeps failing ({what})")
            bound = min(self._endpoint.longest_backoff_s, self._endpoint.backoff_s * 2.0 ** (tries - 1))
            if self._stopped.wait(wait_s + bound * random.uniform(0.5, 1.0)):
                raise self._gave_up("was left")

    def _send(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        request = urllib.request.Request(self._url, data=json.dumps(body).encode(), headers=headers)
        with self._opener.open(request, timeout=self._endpoint.timeout_s) as response:
            return json.loads(response.read())

    def _read(self, said: Mapping[str, Any]) -> Completion:
        choice = said["choices"][0]
        token_ids = choice.get("token_ids") or self._encode(choice["text"])
        return Completion(tuple(token_ids), (), "length" if choice.get("finish_reason") == "length" else "stop")

    def _reason(self, error: urllib.error.HTTPError, longest: int = 300) -> str:
        line = " ".join(error.read().decode("utf-8", "replace").split())[:longest]
        return line.replace(self._secret, "***") if self._secret else line

    def _gave_up(self, what: str) -> CurioError:
        advice = f"Check the address, the model '{self._endpoint.model}' and {self._endpoint.api_key_env}; "
        return CurioError(f"{self._url} {what}", advice + "finished samples are kept.", MISSING)
