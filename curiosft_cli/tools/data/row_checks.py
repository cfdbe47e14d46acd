"""The table of everything that can be wrong with a row of training data, and the checks of a single row."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from curiosft_cli.data.records import Problem
from curiosft_cli.data.response_format import THINK_OPEN, format_error
from curiosft_cli.data.sources import ANSWER_COLUMNS, MESSAGE_COLUMNS, QUESTION_COLUMNS, RESPONSE_COLUMNS
from curiosft_cli.stages.rephrase.judge.normalise import spelled

Repair = Literal["drop", "clean", "none"]


@dataclass(frozen=True)
class RowCheck:
    """One kind of defect.

    Attributes:
        title: what is wrong with the rows.
        fix: the next step, as an imperative.
        problem: it makes the exit code 2; otherwise it is only a note.
        repair: what a repaired copy does with such rows.
    """

    title: str
    fix: str
    problem: bool = True
    repair: Repair = "none"


CHECKS: dict[str, RowCheck] = {
    "unreadable": RowCheck(
        "rows that cannot be read", "Correct them, or set data.on_bad_row=skip to train without them.", repair="drop"
    ),
    "columns": RowCheck("rows with other columns than the first", "Bring the file into one layout."),
    "characters": RowCheck(
        "rows with control characters or broken Unicode", "Remove these characters.", repair="clean"
    ),
    "replaced": RowCheck(
        "rows with U+FFFD: a text was read in the wrong encoding", "Make the file again from its source, as UTF-8."
    ),
    "long_question": RowCheck(
        "questions over check.max_question_characters", "Cut or remove them: these are no questions.", repair="drop"
    ),
    "repeated": RowCheck("rows that repeat an earlier question and gold", "Keep one of them.", repair="drop"),
    "conflict": RowCheck(
        "rows whose question has two different golds", "Find the right gold, or remove them.", repair="drop"
    ),
    "repeated_id": RowCheck("rows that repeat an earlier id", "Give every row an id of its own.", problem=False),
    "no_gold": RowCheck("rows without a gold", "Add the answer: rl and eval cannot score these rows.", repair="drop"),
    "ungradable": RowCheck(
        "golds that cannot be parsed", "Write the answer as LaTeX or a number, without words around it.", repair="drop"
    ),
    "cut_gold": RowCheck("golds whose braces or environments are not closed", "Write the whole answer.", repair="drop"),
    "no_response": RowCheck(
        "rows without an expert response",
        "sft stops at them, or leaves them out with data.on_bad_row=skip; rl can use them.",
        problem=False,
    ),
    "think": RowCheck(
        "responses without exactly one thought that ends in </think>",
        "Write <think>, the thought, </think>, the solution.",
        repair="drop",
    ),
    "box": RowCheck(
        "responses whose solution has no readable \\boxed answer", "End the solution in \\boxed{...}.", repair="drop"
    ),
    "wrong_expert": RowCheck(
        "expert answers that fail their own gold", "Compare both, then correct or remove the row.", repair="drop"
    ),
    "ungraded": RowCheck(
        "expert answers whose grading did not finish (counted as neither right nor wrong)",
        "Simplify the gold or the answer.",
        problem=False,
    ),
    "long_prompt": RowCheck("prompts over data.max_prompt_length", "Shorten them; sft leaves them out.", repair="drop"),
    "long_response": RowCheck(
        "responses over sft.max_response_length",
        "sft cuts them, so that they end in no answer: raise the limit or remove them.",
    ),
    "language": RowCheck(
        "questions in another language than most", "Remove them if they are not meant.", problem=False
    ),
    "contaminated": RowCheck(
        "questions that a benchmark has too", "Remove them (--drop-contaminated), or do not report that benchmark."
    ),
}


@dataclass
class Findings:
    """The findings of each check: all row numbers, and details of the first rows."""

    examples: int = 20
    rows: dict[str, array[int]] = field(default_factory=dict)
    details: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, check: str, row: int, detail: str = "") -> None:
        """Note that the check found something in this row."""
        self.rows.setdefault(check, array("Q")).append(row)
        shown = self.details.setdefault(check, [])
        if len(shown) < self.examples:
            shown.append((row, detail))

    def to_repair(self, how: Repair, but: str = "") -> set[int]:
        """Rows that a repaired copy treats in this way, except those of the check `but`."""
        named = [check for check in self.rows if CHECKS[check].repair == how and check != but]
        return {row for check in named for row in self.rows[check]}

    def problems(self) -> list[str]:
        """Checks that found a problem, in the order of the table."""
        return [name for name, check in CHECKS.items() if check.problem and name in self.rows]


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_EXTRA_COLUMNS = {"id": ("id", "extra_info"), "source": ("source", "data_source")}


def roles(row: Mapping[str, Any]) -> dict[str, str]:
    """Role -> column, for the roles question, gold, response, id and source that the row has."""
    present = {column for column, value in row.items() if value is not None}
    found: dict[str, str] = {}
    for column in (*QUESTION_COLUMNS, *MESSAGE_COLUMNS):
        if column in present:
            found["question"] = column
            break
    model = row.get("reward_model")
    if isinstance(model, Mapping) and model.get("ground_truth") is not None:
        found["gold"] = "reward_model.ground_truth"
    else:
        golds = [column for column in (*ANSWER_COLUMNS, "solution") if column in present]
        found |= {"gold": golds[0]} if golds else {}
    responses = [column for column in RESPONSE_COLUMNS if column in present]
    if "messages" in present and found.get("question") == "messages":
        responses.insert(0, "messages")
    found |= {"response": responses[0]} if responses else {}
    for role, columns in _EXTRA_COLUMNS.items():
        found |= {role: next(c for c in columns if c in present)} if present & {*columns} else {}
    return found


def layout(found: Mapping[str, str]) -> str:
    """The name of the layout with these roles."""
    if found.get("gold") == "reward_model.ground_truth":
        return "verl / LUFFY"
    question = found.get("question", "")
    return {"messages": "messages", "problem": "problem + solution", "prompt": "prompt + completion"}.get(
        question, "question + answer"
    )


def question_key(problem: Problem) -> bytes:
    """Equal for questions that differ only in white space, delimiters and spelling of formulas."""
    parts = ["".join(spelled(text)).strip(".,;:!?") for text in (problem.question, *problem.choices)]
    return blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def check_row(problem: Problem, max_characters: int) -> Iterator[tuple[str, str]]:
    """Yield `(check, detail)` for everything that is wrong with this row by itself."""
    texts = (problem.question, problem.answer, problem.response, *problem.choices)
    for found in (_CONTROL.search(text) for text in texts):
        if found:
            yield "characters", f"U+{ord(found[0]):04X}"
            break
    if any("\ufffd" in text for text in texts):
        yield "replaced", ""
    if len(problem.question) > max_characters:
        yield "long_question", f"{len(problem.question):,} characters"
    if problem.kind == "math" and (unclosed := _unclosed(problem.answer)):
        yield "cut_gold", f"{unclosed} in {problem.answer[:60]!r}"
    if problem.response.strip():
        broken = format_error(f"{THINK_OPEN}\n{problem.response}")
        if broken:
            yield ("box" if broken == "F4" else "think"), _FORMAT[broken]


_FORMAT = {
    "F1": "a second <think>",
    "F2": "no </think>, or more than one",
    "F3": "the thought is blank",
    "F4": "no readable box after </think>",
}


_BRACE = re.compile(r"(?<!\\)(?:\\\\)*([{}])")
_PAIRS = (("left", "right"), ("begin", "end"))


def _unclosed(gold: str) -> str:
    """The brace or command that a gold opens without closing, or closes without opening; "" if there is none."""
    depth = 0
    for match in _BRACE.finditer(gold):
        depth += 1 if match[1] == "{" else -1
        if depth < 0:
            break
    if depth:
        return "a brace"
    for pair in _PAIRS:
        opened, closed = (len(re.findall(rf"\\{command}(?![A-Za-z])", gold)) for command in pair)
        if opened != closed:
            return f"\\{pair[0]}"
    return ""


def cleaned(value: Any) -> Any:
    """The same value without the control characters and lone surrogates of its texts."""
    if isinstance(value, str):
        return _CONTROL.sub("", value)
    if isinstance(value, Mapping):
        return {key: cleaned(item) for key, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, list) else value
