"""The responses to read: every question with what each model made of it, cut to fit the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curiosft_cli.evaluation.results import GRADES, QUESTIONS, ModelResult
from curiosft_cli.evaluation.samples import SAMPLES
from curiosft_cli.run.files import present, read_jsonl
from curiosft_cli.run.text import plain
from curiosft_cli.tools.report.budget import cut, fitting
from curiosft_cli.tools.report.read import RunRecord

MOST_BYTES = 6_500_000
MOST_RESPONSES = 40_000
MOST_CHARACTERS = 20_000_000
LONGEST = 6000
SHORTEST = 100

# (text, right or not or None, reason, answer, tokens)
Response = tuple[str, float | None, str, str, int]


class Question:
    """One question, and the responses of each model, by its number."""

    def __init__(self, benchmark: str, row: dict[str, Any]) -> None:
        self.benchmark, self.id = benchmark, str(row["id"])
        self.text = str(row.get("question") or "(this version of curiosft kept no questions)")
        self.gold = str(row.get("gold"))
        self.responses: dict[int, list[Response]] = {}

    def shown(self, longest: int) -> list[Any]:
        """For the page: benchmark, id, question, gold, and [model, responses] pairs."""
        responses = [
            [
                model,
                [
                    [cut(text, longest), right, reason, plain(answer), tokens]
                    for text, right, reason, answer, tokens in some
                ],
            ]
            for model, some in sorted(self.responses.items())
        ]
        return [self.benchmark, plain(self.id), cut(self.text, LONGEST), plain(self.gold), responses]


def samples(runs: Sequence[RunRecord]) -> tuple[str, list[str]]:
    """The questions for the page, packed; "" where no response was saved. And remarks on what was cut."""
    models = [(run, model) for run in runs for model in run.models]
    counts = [
        (result.summary.get("samples") or 0, len(result.golds))
        for _, model in models
        for result in model.benchmarks.values()
    ]
    total = max(1, sum(each * questions for each, questions in counts))
    most = max((each for each, _ in counts), default=0)
    each = most if total <= MOST_RESPONSES else max(1, most * MOST_RESPONSES // total)
    longest = max(400, min(LONGEST, MOST_CHARACTERS // total))
    questions: dict[tuple[str, str], Question] = {}
    for number, (run, model) in enumerate(models):
        _add(questions, number, run, model, each, longest)
    read = [question for question in questions.values() if question.responses]
    if not read:
        return "", []
    labels = [plain(f"{run.label} {model.label}") for run, model in models]

    def make(longest: int) -> dict[str, Any]:
        return {"models": labels, "questions": [question.shown(longest) for question in read]}

    data, longest = fitting(make, longest, MOST_BYTES, SHORTEST)
    remarks = [f"Responses longer than {longest:,} characters are cut in the middle. The run folder has them whole."]
    if each < most:
        remarks.append(f"Only the first {each} responses to a question are here. The run folder has all.")
    return data, remarks


def _add(
    questions: dict[tuple[str, str], Question], number: int, run: RunRecord, model: ModelResult, each: int, longest: int
) -> None:
    """Add the responses of one model. Texts are cut at once, so that memory holds no more than the page will."""
    for name in model.benchmarks:
        folder = model.folder / name
        for row in read_jsonl(folder / QUESTIONS, run.left_out):
            questions.setdefault((name, str(row.get("id"))), Question(name, row))
        grades = {
            (str(row.get("id")), row.get("sample")): row for row in read_jsonl(present(folder / GRADES), run.left_out)
        }
        saved = present(folder / SAMPLES)
        if not saved.exists():
            run.left_out.append(f"{model.label} on {name}: no responses to read, {saved.name} is not there")
        for row in read_jsonl(saved, run.left_out):
            key = str(row.get("id")), row.get("sample", 0)
            question, grade = questions.get((name, key[0])), grades.get(key)
            if question is None or grade is None or not isinstance(key[1], int) or key[1] >= each:
                continue
            answer = grade.get("extracted") or grade.get("letter") or ""
            text = cut(str(row.get("text", "")), longest)
            response = (text, grade.get("answer"), plain(str(grade.get("reason"))), str(answer), row.get("tokens") or 0)
            question.responses.setdefault(number, []).append(response)
