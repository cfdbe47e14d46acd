"""Entropy of a model on saved completions: teacher-forced, temperature 1, full vocabulary, in nats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from curiosft_cli.train.head.cpu_kernels import kernels_for
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import head_logp
from curiosft_cli.train.load import body_and_head, compute_dtype, load_model

if TYPE_CHECKING:
    from curiosft_cli.run.device import Dtype
    from curiosft_cli.run.sections import Model


def completion_entropies(
    path: str,
    model_section: Model,
    precision: Dtype,
    sequences: Mapping[str, Iterable[tuple[Sequence[int], Sequence[int]]]],
    *,
    head_chunk: int = 256,
) -> dict[str, dict[str, float]]:
    """Mean entropy per benchmark of its `(prompt ids, completion ids)` pairs.

    Returns:
        `{benchmark: {"token_mean": over all tokens, "seq_mean": mean of the completions' means}}`; a benchmark
        without tokens is left out.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(precision, device)
    model = load_model(path, model_section, dtype=dtype, device=device).eval()
    body, weight = body_and_head(model)
    means: dict[str, dict[str, float]] = {}
    for benchmark, pairs in sequences.items():
        sums: list[tuple[float, int]] = []
        for prompt, completion in pairs:
            ids = torch.tensor([[*prompt, *completion]], device=device)
            with torch.inference_mode():
                hidden = body(input_ids=ids, position_ids=torch.arange(ids.shape[1], device=device)[None])
                # The position before a token predicts it; the last position predicts nothing that was generated.
                rows = hidden[0, len(prompt) - 1 : -1]
                labels = ids[0, len(prompt) :]
                scored = head_logp(
                    rows,
                    weight,
                    labels,
                    chunk=head_chunk,
                    compute_dtype=dtype,
                    head_pass=HeadPass(entropy=True),
                    kernels=kernels_for(device),
                )
            assert scored.entropy is not None
            sums.append((float(scored.entropy.double().sum()), len(completion)))
        if sums:
            tokens = sum(count for _, count in sums)
            means[benchmark] = {
                "token_mean": sum(total for total, _ in sums) / tokens,
                "seq_mean": sum(total / count for total, count in sums) / len(sums),
            }
    return means
