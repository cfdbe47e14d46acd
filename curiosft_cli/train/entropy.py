"""Entropy and loss of a model on given completions: teacher-forced, temperature 1, full vocabulary, in nats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curiosft_cli.run.errors import CurioError
from curiosft_cli.train.encode import PromptFormat, encode_row
from curiosft_cli.train.head.cpu_kernels import kernels_for
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.scores import ScoredRows, head_logp
from curiosft_cli.train.load import body_and_head, compute_dtype, load_model, load_tokenizer

if TYPE_CHECKING:
    from curiosft_cli.data.records import Problem
    from curiosft_cli.run.device import Dtype
    from curiosft_cli.run.sections import Config, Model


def completion_entropies(
    path: str,
    model_section: Model,
    precision: Dtype,
    sequences: Mapping[str, Iterable[tuple[str, Sequence[int], Sequence[int]]]],
) -> dict[str, dict[str, Any]]:
    """Mean entropy in nats per benchmark of its `(question id, prompt ids, completion ids)`.

    Returns:
        `{benchmark: {"token_mean": over all tokens, "seq_mean": mean of the completions' means, "questions":
        {id: [sum over the tokens, tokens]}}}`; a benchmark without tokens is left out.
    """
    score = completion_scorer(path, model_section, precision)
    means: dict[str, dict[str, Any]] = {}
    for benchmark, completions in sequences.items():
        sums: list[tuple[str, float, int]] = []
        for question, prompt, completion in completions:
            entropy = score(prompt, completion).entropy
            assert entropy is not None
            sums.append((question, float(entropy.double().sum()), len(completion)))
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


def held_out_loss(path: str, config: Config, problems: Iterable[Problem]) -> float:
    """Mean loss over the tokens of the responses, as sft measures it; prompts that are too long are left out.

    Args:
        path: a checkpoint.
        problems: held-out rows, each with a response.

    Raises:
        CurioError: every prompt is too long.
    """
    tokenizer, style = load_tokenizer(path, config.model), PromptFormat.from_config(config.model)
    score = completion_scorer(path, config.model, config.sft.precision)
    rows = (encode_row(tokenizer, problem, style, config.sft.max_response_length) for problem in problems)
    sums = [
        (-float(score(row.prompt_ids, row.response_ids).logp.double().sum()), len(row.response_ids))
        for row in rows
        if len(row.prompt_ids) <= config.data.max_prompt_length
    ]
    if not sums:
        raise CurioError(
            f"no held-out row has a prompt of at most data.max_prompt_length = {config.data.max_prompt_length} tokens",
            "Raise it, or give other rows as data.validation.",
        )
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


def completion_scorer(
    path: str, model_section: Model, precision: Dtype, *, head_chunk: int = 256
) -> Callable[[Sequence[int], Sequence[int]], ScoredRows]:
    """Open a model. The function that it returns scores the N tokens of a completion behind a prompt."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(precision, device)
    model = load_model(path, model_section, dtype=dtype, device=device).to(device).eval()
    body, weight = body_and_head(model)

    def score(prompt: Sequence[int], completion: Sequence[int]) -> ScoredRows:
        ids = torch.tensor([[*prompt, *completion]], device=device)
        with torch.inference_mode():
            hidden = body(input_ids=ids, position_ids=torch.arange(ids.shape[1], device=device)[None])
            # The position before a token predicts it; the last position predicts nothing of the completion.
            return head_logp(
                hidden[0, len(prompt) - 1 : -1],
                weight,
                ids[0, len(prompt) :],
                chunk=head_chunk,
                compute_dtype=dtype,
                head_pass=HeadPass(entropy=True),
                kernels=kernels_for(device),
            )

    return score
