"""Entropy of a model on saved completions: teacher-forced, temperature 1, full vocabulary, in nats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    sequences: Mapping[str, Iterable[tuple[str, Sequence[int], Sequence[int]]]],
    *,
    head_chunk: int = 256,
) -> dict[str, dict[str, Any]]:
    """Mean entropy in nats per benchmark of its `(question id, prompt ids, completion ids)`.

    Returns:
        `{benchmark: {"token_mean": over all tokens, "seq_mean": mean of the completions' means, "questions":
        {id: [sum over the tokens, tokens]}}}`; a benchmark without tokens is left out.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(precision, device)
    model = load_model(path, model_section, dtype=dtype, device=device).to(device).eval()
    body, weight = body_and_head(model)
    means: dict[str, dict[str, Any]] = {}
    for benchmark, completions in sequences.items():
        sums: list[tuple[str, float, int]] = []
        for question, prompt, completion in completions:
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
            sums.append((question, float(scored.entropy.double().sum()), len(completion)))
        if sums:
            by_question: dict[str, list[float]] = {}
            for question, total, count in sums:
                known = by_question.setdefault(question, [0.0, 0])
                by_question[question] = [known[0] + total, known[1] + count]
            means[benchmark] = {
                "token_mean": sum(total for _, total, _ in sums) / sum(count for *_, count in sums),
                "seq_mean": sum(total / count for _, total, count in sums) / len(sums),
                "questions": by_question,
            }
    return means
