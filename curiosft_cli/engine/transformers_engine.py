"""Sampling with transformers alone, for machines without vLLM: the same answers, slower."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from curiosft_cli.engine.base import Completion, Sampling
from curiosft_cli.engine.checks import check_prompts, fill_seeds
from curiosft_cli.run.device import resolve_dtype

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from curiosft_cli.engine.spec import EngineSpec


@dataclass
class Growing:
    """A completion under way."""

    index: int
    room: int  # tokens that still fit
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, token: int, logprob: float, stop_token_ids: Sequence[int]) -> Literal["stop", "length"] | None:
        """Append a token; say why the completion ends with it, or None."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in stop_token_ids:
            return "stop"
        return "length" if len(self.token_ids) == self.room else None


class TransformersEngine:
    """A `RolloutEngine` that needs no vLLM: left-padded batches, grown token by token.

    Args:
        spec: the model; its settings of vLLM have no effect here.
        batch_size: completions that grow at the same time.
    """

    def __init__(self, spec: EngineSpec, *, batch_size: int = 64) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._spec, self._batch_size = spec, batch_size
        self._version = 0
        self._seeds = random.Random(spec.seed)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        source: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
        config = AutoConfig.from_pretrained(spec.model, **source, **spec.hf_overrides)
        dtype = getattr(torch, resolve_dtype(spec.dtype))
        model = AutoModelForCausalLM.from_pretrained(
            spec.model, config=config, dtype=dtype, use_safetensors=True, **source
        )
        self._model: Any = model.to(self._device).eval()

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """See `RolloutEngine.stream`; prompts of similar length share a batch.

        Raises:
            CurioError: a prompt is empty or fills the context.
        """
        check_prompts(prompts, seeds, self._spec.max_model_len)
        return self._batches(prompts, sampling, fill_seeds(seeds, len(prompts), self._seeds))

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `RolloutEngine.score`."""
        import torch

        if len(token_ids) < 2:
            return []
        check_prompts([token_ids], None, self._spec.max_model_len)
        tokens = torch.tensor([list(token_ids)], device=self._device)  # [1, T]
        with torch.inference_mode():
            logp = self._model(input_ids=tokens[:, :-1]).logits.float().log_softmax(-1)  # [1, T - 1, V]
            return logp.gather(-1, tokens[:, 1:, None]).flatten().tolist()

    def load_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `RolloutEngine.load_weights`; values are cast and copied in place.

        Raises:
            KeyError: a name is not the model's.
            RuntimeError: the model has tensors that were not among the pairs.
        """
        import torch

        own = self._model.state_dict()
        missing = set(own)
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)
                missing.discard(name)
        if missing:
            raise RuntimeError(f"the weights came without {sorted(missing)}")
        self._version = version

    def sleep(self) -> None:
        """Move the weights out of the GPU's memory."""
        self._model.to("cpu")

    def wake(self) -> None:
        """Move them back."""
        self._model.to(self._device)

    def close(self) -> None:
        """Drop the model."""
        import torch

        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _batches(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        import torch

        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            growing = [
                Growing(
                    index,
                    room=min(sampling.max_tokens, self._spec.max_model_len - len(prompts[index])),
                    generator=torch.Generator().manual_seed(seeds[index]),
                )
                for index in chosen
            ]
            yield from self._grow(growing, [prompts[index] for index in chosen], sampling)

    def _grow(
        self, growing: list[Growing], prompts: list[Sequence[int]], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Extend one batch token by token; a row that ends is yielded and leaves the batch."""
        import torch
        from transformers import DynamicCache

        version, cache = self._version, DynamicCache(config=self._model.config)
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        seen = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        inputs, mask = (torch.tensor(rows, device=self._device) for rows in (padded, seen))  # [B, T] both
        while growing:
            logits = self._next_logits(inputs, mask, cache)
            uniform = torch.stack([torch.rand((), generator=row.generator, dtype=torch.float64) for row in growing])
            tokens, logprobs = draw(logits, uniform.to(self._device), sampling.temperature, sampling.top_p)  # [B] both
            if self._spec.logprobs == "raw":
                logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
            staying = []
            for place, (row, token, logprob) in enumerate(
                zip(growing, tokens.tolist(), logprobs.tolist(), strict=True)
            ):
                if reason := row.add(token, logprob, sampling.stop_token_ids):
                    yield row.index, Completion(tuple(row.token_ids), tuple(row.logprobs), reason, version)
                else:
                    staying.append(place)
            if len(staying) < len(growing):
                keep = torch.tensor(staying, dtype=torch.long, device=self._device)
                growing, tokens, mask = [growing[place] for place in staying], tokens[keep], mask[keep]
                cache.batch_select_indices(keep)
            inputs, mask = tokens[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)

    def _next_logits(self, inputs: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """Feed new tokens `inputs` [B, T]; return the float32 logits [B, V] after the last of each row."""
        import torch

        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -inputs.shape[1] :]  # padding does not count
        with torch.inference_mode():
            output = self._model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1].float()


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Sample by inverting the cumulative distribution of the tempered nucleus.

    The nucleus is the smallest set of most likely tokens whose mass at `temperature` reaches `top_p`.

    Args:
        logits: [B, V] float32.
        uniform: [B] float64 in [0, 1); equal numbers draw equal tokens.
        temperature: 0 takes the most likely token.
        top_p: in (0, 1].

    Returns:
        Token ids [B], and their log-probabilities [B] in nats under what was drawn from (greedy: at temperature 1).
    """
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
    probs, ids = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probs.cumsum(-1) - probs
    kept = probs.where(before < top_p, 0.0)
    cumulative = kept.cumsum(-1)
    place = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1, keepdim=True)
    place = place.clamp_max((kept > 0).sum(-1, keepdim=True) - 1)
    return ids.gather(-1, place).flatten(), (kept.gather(-1, place) / cumulative[:, -1:]).log().flatten()
