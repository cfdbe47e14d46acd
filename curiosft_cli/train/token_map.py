"""The curiosity map: what student and teacher think of every token of a few fixed rows, kept as the run goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curiosft_cli.objectives.tokens import TokenRows, entropy, label_logp, tempered_logp
from curiosft_cli.run.files import write_compressed_jsonl
from curiosft_cli.train.start import gather_objects

if TYPE_CHECKING:
    from torch import Tensor

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.objectives.temperature import TemperatureSettings
    from curiosft_cli.train.batches import Pack
    from curiosft_cli.train.encode import Row
    from curiosft_cli.train.head.kernels import Kernels
    from curiosft_cli.train.loop import Loop
    from curiosft_cli.train.student import Student
    from curiosft_cli.train.suppliers import Suppliers

STUDENT, TEACHER = "student", "teacher"
"""Names of the candidates: ids [N, C] and probabilities [N, C] of the likeliest tokens, likeliest first."""

WEIGHT = "token_weight"


def token_values(
    logits: Tensor,
    labels: Tensor,
    objective: BoundObjective,
    teacher: tuple[Tensor, TemperatureSettings] | None,
    kernels: Kernels,
    candidates: int = 5,
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Values [N] of each token, and the candidates of student and teacher.

    Values: `entropy` of the student over the full vocabulary and `logp` of the token; with a teacher also its `tau`,
    `delta` (Eq. 7), `teacher_logp` and the `gap` logp - teacher_logp; `weight`, where the objective reports one and
    reads nothing but these. Entropies, log-probabilities and differences are in nats.

    Args:
        logits: [N, V] of the student, any float dtype.
        labels: [N] int64, the tokens.
        objective: of the training.
        teacher: its logits [N, V] at temperature 1, and how it is tempered.
        kernels: see `tempered_rows`.
        candidates: number of the likeliest tokens to keep, C.
    """
    from curiosft_cli.train.head.scores import tempered_rows

    full = logits.float()
    values = {"entropy": entropy(full), "logp": label_logp(full, labels)}
    likeliest = {STUDENT: _likeliest(tempered_logp(full, 1.0), candidates)}
    extra: dict[str, Tensor] = {}
    if teacher is not None:
        rows = tempered_rows(teacher[0], labels, teacher[1], kernels)
        gap = values["logp"] - rows.logp
        values |= {"tau": rows.tau, "delta": rows.target - rows.entropy, "teacher_logp": rows.logp, "gap": gap}
        likeliest[TEACHER] = _likeliest(tempered_logp(teacher[0], rows.tau), candidates)
        extra = {"teacher_logp": rows.logp, "teacher_tau": rows.tau}
    if objective.needs <= {*extra, "entropy", "logits"}:
        stats = objective.fn(TokenRows(values["logp"], labels, extra, values["entropy"], full)).stats
        values |= {"weight": stats[WEIGHT]} if WEIGHT in stats else {}
    return values, likeliest


def record_tokens(
    loop: Loop, suppliers: Suppliers, objective: BoundObjective, rows: Sequence[Row], max_tokens: int, file: Path
) -> None:
    """Write the map of these rows, a line each: `row`, `id`, `prompt`, `tokens`, and the columns of `token_values`.

    Every rank does its share; the first one writes.
    """
    mine = []
    with loop.evaluating():
        for pack in loop.packs(rows, max_tokens):
            columns = _columns(loop, suppliers, objective, pack)
            start = 0
            for member in pack.members if pack.counted else ():
                end = start + len(rows[member].response_ids)
                here = {name: values[start:end] for name, values in columns.items()}
                prompt = str(loop.tokenizer.decode(list(rows[member].prompt_ids)))
                mine.append({"row": member, "id": rows[member].problem_id, "prompt": prompt, **here})
                start = end
    lines = sorted(gather_objects(loop.accelerator, mine), key=lambda line: line["row"])
    if loop.accelerator.is_main_process:
        write_compressed_jsonl(file, lines)


def _columns(loop: Loop, suppliers: Suppliers, objective: BoundObjective, pack: Pack) -> dict[str, list[Any]]:
    """`token_values` of the N tokens of a pack as lists: numbers, and [text, probability] of each candidate."""
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = str(loop.tokenizer.decode([token]))
        return texts[token]

    columns: dict[str, list[Any]] = defaultdict(list, tokens=[text(token) for token in pack.labels.tolist()])
    student = loop.student_module
    for rows, logits, teacher in _tiles(student, suppliers, pack):
        values, likeliest = token_values(logits, pack.labels[rows], objective, teacher, student.kernels)
        for name, numbers in values.items():
            columns[name] += map(_number, numbers.tolist())
        for name, (ids, chances) in likeliest.items():
            columns[name] += [
                [[text(token), _number(chance)] for token, chance in zip(*both, strict=True)]
                for both in zip(ids.tolist(), chances.tolist(), strict=True)
            ]
    return columns


def _tiles(
    student: Student, suppliers: Suppliers, pack: Pack
) -> Iterator[tuple[slice, Tensor, tuple[Tensor, TemperatureSettings] | None]]:
    """Which tokens, their logits [n, V], and the teacher's with its settings; few enough tokens for float32 copies."""
    from curiosft_cli.train.head.product import HeadProduct, detached

    teacher, settings = suppliers.teacher, suppliers.tempering
    states = [student.states(pack), *([teacher.states(pack)] if teacher else [])]
    with detached(pack.labels.device):
        heads = [HeadProduct(*both, student.chunk, student.compute_dtype) for both in states]
        for rows in heads[0].chunks():
            chunks = [head.logits(rows) for head in heads]
            for tile in student.kernels.tiles(chunks[0]):
                here = slice(rows.start + tile.start, rows.start + tile.stop)
                yield here, chunks[0][tile], None if settings is None else (chunks[-1][tile], settings)


def _number(value: float) -> float | None:
    """Five digits; None for what is not finite, which JSON has no word for."""
    return float(f"{value:.5g}") if isfinite(value) else None


def _likeliest(logp: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Ids and probabilities [N, C] of the likeliest tokens, of log-probabilities [N, V]."""
    top = logp.topk(min(candidates, logp.shape[-1]))
    return top.indices, top.values.exp()
