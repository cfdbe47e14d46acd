"""The rules on labelled rewrites, and what they must never let through."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.benchmarks import load_benchmark
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.run.sections import Eval
from curiosft_cli.stages.rephrase.calibrate import NONE, plant
from curiosft_cli.stages.rephrase.flags import flags
from curiosft_cli.stages.rephrase.judge import rules
from curiosft_cli.stages.rephrase.judge.diff import edits, hints
from curiosft_cli.stages.rephrase.judge.normalise import spelled
from curiosft_cli.stages.rephrase.judge.rules import judge_by_rules, tidy
from curiosft_cli.stages.rephrase.judge.verify import PROMPT, read_verdict, verify_message

TESTS = Path(__file__).parents[1]
OLD = [json.loads(line) for line in (TESTS / "rewrites.jsonl").read_text("utf-8").splitlines()]
PAIRS = [json.loads(line) for line in (TESTS / "rewrite_pairs.jsonl").read_text("utf-8").splitlines()]
HARDER = [json.loads(line) for line in (TESTS / "harder_rewrite_pairs.jsonl").read_text("utf-8").splitlines()]
EXAMPLE = (
    "What is the remainder of $8^6 + 7^7 + 6^8$ is divided by 5?\n\n"
    "no calculator, of course, paper isn't needed either, but sure.",
    "What is the remainder of $8^6 + 7^7 + 6^8$ when divided by 5?",
)
TANK = "A tank holds 40 liters and loses 6 liters an hour. How many liters are left after 5 hours?"
REAL = os.environ.get("CURIOSFT_BENCHMARKS")


def outcome(post: str, rewrite: str) -> str:
    return judge_by_rules(post, tidy(rewrite)).outcome


def share(wanted: str, rows: list[dict[str, str]]) -> float:
    return sum(outcome(row["post"], row["rewrite"]) == wanted for row in rows) / len(rows)


def pairs(**wanted: str) -> list[dict[str, str]]:
    return [row for row in PAIRS if all(row[name] == value for name, value in wanted.items())]


def test_the_labelled_sets_are_large_enough_to_mean_something() -> None:
    assert len(PAIRS) >= 150
    assert {"en", "zh", "ru", "es", "fr", "de"} <= {row["language"] for row in PAIRS}
    assert {"number", "negation", "condition", "quantifier", "question", "leak", "choice", "unit", "sign"} <= {
        row["why"] for row in PAIRS
    }
    assert len({(row["post"], row["rewrite"]) for row in PAIRS}) == len(PAIRS)
    posts = {half: {row["post"] for row in pairs(half=half)} for half in ("mend", "report")}
    assert not posts["mend"] & posts["report"]


@pytest.mark.parametrize("half", ["mend", "report"])
def test_rules_hardly_err(half: str) -> None:
    assert share("refused", pairs(half=half, label="good")) <= 0.01
    assert share("accepted", pairs(half=half, label="spoiled")) <= 0.01


@pytest.mark.parametrize("half", ["mend", "report"])
def test_a_label_needs_no_verifier_in_any_language(half: str) -> None:
    assert share("undecided", pairs(half=half, label="good", kind="labelled")) <= 0.15


def test_rules_hardly_err_on_harder_rewrites_either() -> None:
    good, spoiled = ([row for row in HARDER if row["label"] == label] for label in ("good", "spoiled"))
    assert share("refused", good) <= 0.0125
    assert share("accepted", spoiled) <= 0.01


@pytest.mark.parametrize(
    "source", ["(HMMT February 2014, Guts #5)", "(A. B. Smith)", "(6th IMO)", "[i]Proposed by Ann Lee[/i]"]
)
def test_a_source_or_credit_behind_the_problem_may_go(source: str) -> None:
    assert outcome(f"{TANK} {source}", TANK) == "accepted"


def test_a_post_that_starts_as_its_problem_does_may_lose_that() -> None:
    chat = "A new marathon! Rules: post 2 problems after solving one. Here is P1.\n\n"
    assert outcome(chat + TANK, TANK) == "undecided"


def test_old_rewrites_are_judged_no_worse() -> None:
    good = [row for row in OLD if row["label"] == "good"]
    spoiled = [row for row in OLD if row["label"] == "spoiled"]
    refused = [row for row in good if outcome(row["original"], row["rewritten"]) == "refused"]
    accepted = [row for row in spoiled if outcome(row["original"], row["rewritten"]) == "accepted"]
    assert len(refused) <= 0.01 * len(good), refused
    # Where the rewrite is the post, with its answer, the original would be trained on anyway.
    assert all(spelled(row["original"]) == spelled(row["rewritten"]) for row in accepted), accepted
    assert len(accepted) <= 0.01 * len(spoiled)


def test_the_papers_own_examples_are_never_refused() -> None:
    original, _, rewritten = REPHRASE_PROMPT.partition("Example 2:")[2].partition("Now, here")[0].partition("Output:")
    for post, rewrite in (EXAMPLE, (original.replace("Input:", "").strip(), rewritten.strip())):
        assert outcome(post, rewrite) == "undecided"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_any_changed_number_is_refused(seed: int) -> None:
    draw, problem = random.Random(seed), generate("train", 1, seed)[0]
    number = draw.choice(list(re.finditer(r"\d+", problem.question)))
    other = str(int(number[0]) + draw.randint(1, 90))
    changed = problem.question[: number.start()] + other + problem.question[number.end() :]
    assert outcome(noisy(problem, seed).question, changed) == "refused"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_lost_sentence_is_accepted(seed: int) -> None:
    problem = generate("train", 1, seed)[0]
    for part in re.split(r"(?<=[.?]) ", problem.question):
        assert outcome(noisy(problem, seed).question, problem.question.replace(part, "").strip()) != "accepted"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_swap_of_two_numbers_is_accepted(seed: int) -> None:
    problem = generate("train", 1, seed)[0]
    a, b = list(re.finditer(r"\d+", problem.question))[:2]
    text = problem.question
    swapped = text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]
    assert swapped == text or outcome(noisy(problem, seed).question, swapped) != "accepted"


@pytest.mark.parametrize(
    "label",
    [
        *(
            "(20 points)",
            "[5 marks]",
            "Problem 7.",
            "12)",
            "(AMC 8, 2011, #4)",
            "Exercise 3.12:",
            "Q4.",
            "#9 -",
            "(3 pts)",
        ),
        *(
            "Problem 3. (10 points)",
            "26th IMO 1985 shortlist Problem 26",
            "【例3】",
            "Задача 5.",
            "(7 баллов)",
            "№ 12.",
        ),
        *(
            "Aufgabe 4:",
            "[4 Punkte]",
            "Ejercicio 8.",
            "Exercice 2 (Lyon 2004)",
            "問題4　",
            "第8题 ",
            "（本小题满分12分）",
            "例3 ",
        ),
        *(
            "Task B-1.4.",
            "G9.3",
            "XXII OM - II - Problem 4\n\n",
            "Three. (25 points)",
            "四、（20分）",
            "Example 3-15",
            "Aufgabe 7 (5 P.)",
            "Example 3",
            "30",
            "6.26",
            "## 2)",
            "Three, (10 points)",
            "3. uzdevums.",
            "【2025新高考一卷·第17题】(本小题满分10分)",
        ),
    ],
)
def test_a_label_may_go_or_stay(label: str) -> None:
    assert outcome(f"{label} {TANK}", TANK) == "accepted"
    assert outcome(f"{label} {TANK}", f"{label} {TANK}") == "accepted"


@pytest.mark.parametrize(
    ("post", "rewrite"),
    [
        ("Radius 5. Find the area of the circle.", "Find the area of the circle."),
        ("Width 5.\nLength 7.\nFind the area.", "Length 7.\nFind the area."),
        ("$n=3$. Find $n^2$.", "Find $n^2$."),
        ("Let $p$ be prime. Find the sum of the divisors of $p^2$.", "Find the sum of the divisors of $p^2$."),
        ("Find the largest of 3, 5.\n(A) 3 (B) 5\n(C) 2013", "Find the largest of 3, 5.\n(A) 3 (B) 5"),
        ("What is 10% of 30? Round to 2 decimals.", "What is 10% of 30?"),
        ("What is 7/9? (2 decimals)", "What is 7/9?"),
        ("A man walks 3 km. How far does he walk? (in metres)", "A man walks 3 km. How far does he walk?"),
        ("There are 3 boys. Each has 4 balls. How many balls?", "Each has 4 balls. How many balls?"),
        ("Tickets cost $5 each. What do 3 tickets cost?", "Tickets cost 5 each. What do 3 tickets cost?"),
        ("$n$ is odd (n > 2013)\nFind all $n$ with $n<2020$.", "Find all $n$ with $n<2020$."),
        ("求最小的正整数。要求大于3。", "求最小的正整数。"),
        ("2 apples cost 6 dollars. What do 5 cost?", "apples cost 6 dollars. What do 5 cost?"),
        ("0.5 kg cost 6 dollars. What do 7 kg cost?", "5 kg cost 6 dollars. What do 7 kg cost?"),
        ("$3-x=5$. Find $x$.", "$x=5$. Find $x$."),
        ("$(3)X=15$. Find $X$ for 2.", "$X=15$. Find $X$ for 2."),
        ("3, x and 5 are sides of a triangle. Find x.", "x and 5 are sides of a triangle. Find x."),
        ("3:5 is the ratio of 2 sides. Which is longer?", "5 is the ratio of 2 sides. Which is longer?"),
        ("Given 3 points on a circle of radius 2, find 4 more.", "points on a circle of radius 2, find 4 more."),
        ("Given 5, find 3 more.", "find 3 more."),
        ("Mit 3 Würfeln wirft man 12. Wie oft?", "Würfeln wirft man 12. Wie oft?"),
        ("[0, 1] Is cut into 3 parts. How long is one?", "Is cut into 3 parts. How long is one?"),
        ("Year 2013: 50 cats\nYear 2014: 70 cats\nHow many more?", "Year 2014: 70 cats\nHow many more?"),
        ("Which weekday was 1 May 2013?\n(2012 was a leap year)", "Which weekday was 1 May 2013?"),
        ("What is 5!", "What is 5"),
        ("(Use 3.14 for pi) Find the circumference for radius 5.", "Find the circumference for radius 5."),
        ("[Answer in cm, 2 digits] Find the side of a square of area 7.", "Find the side of a square of area 7."),
        ("Radius 5. Find the area of a circle.", "Find the area of a circle."),
        ("In 2013 there were 50 cats\nThen 70 came. How many now?", "Then 70 came. How many now?"),
        ("2013年有50只猫\n2014年有70只猫。共多了几只？", "2014年有70只猫。共多了几只？"),
        ("Problem 4. Width 5. Find the area for length 3.", "Find the area for length 3."),
        ("Anna 12, Ben 15. Who is older than 13?", "Who is older than 13?"),
        ("A 5. B 7. Which is larger, 5 or 7?", "B 7. Which is larger, 5 or 7?"),
        ("Week 1. Ann saves 5. Week 2. Ann saves 7. Total?", "Ann saves 5. Week 2. Ann saves 7. Total?"),
        ("Find $7^{100}$ mod 13.", "Find $7^100$ mod 13."),
        (r"Show $u\times v=-v\times u$ for 3 vectors.", r"Show $u\times v=-v\cdot u$ for 3 vectors."),
        ("Let $a*b=a+b-ab$. Find $2*3$.", r"Let $a*b=a+b-ab$. Find $2\cdot 3$."),
        ("What is 7+9? (mod 2013)", "What is 7+9?"),
    ],
)
def test_a_condition_is_no_label(post: str, rewrite: str) -> None:
    assert outcome(post, rewrite) != "accepted"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$x \geqslant 3$", r"\(x\ge 3\)"),
        (r"$\dfrac{1}{2}$", r"$\frac12$"),
        (r"$\left( x+1 \right) \times 2$", r"$(x + 1)\cdot 2$"),
        (r"\_\_\_\_", "______"),
        (r"It is $\qquad$.", "It is ____."),
        (r"$\triangle A B C$", r"$\triangle ABC$"),
        ("（ａ＋１）", "(a+1)"),
        (r"$10\,000$", "$10000$"),
        ("x²≤4", "$x^{2} \\leq 4$"),
        (r"$a_{1}, \ldots, a_{n}$", "$a_1,...,a_n$"),
        ("【例】。", "[例]."),
        ("“a”，«b»", '"a","b"'),
        (r"$\tfrac{a}{12}$", "a/12"),
        (r"$\frac12$", "1/2"),
        (r"30^{\circ}", "30°"),
        (r"$\lambda + \varepsilon$", "λ + ε"),
        ("х+3", "$x+3$"),
    ],
)
def test_one_spelling(one: str, other: str) -> None:
    assert spelled(one) == spelled(other)
    assert outcome(f"Find {one} if 5 is 5.", f"Find {other} if 5 is 5.") == "accepted"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$\frac{x}{2y}$", r"$\frac{x}{2}y$"),
        (r"$\sqrt{x+1}$", r"$\sqrt{x}+1$"),
        ("$x<3$", r"$x\leq 3$"),
        ("$a_{n+1}$", "$a_n+1$"),
        ("$2^{10}$", "$2^10^{}1$"),
        ("$AB$", "$ab$"),
        ("12", "1 2"),
        ("3, 100, 200", "3,100,200"),
        (r"$\frac{1}{2x}$", r"$\frac{1}{2}x$"),
    ],
)
def test_what_means_something_else_is_spelled_otherwise(one: str, other: str) -> None:
    assert spelled(one) != spelled(other)


@pytest.mark.parametrize(
    ("post", "rewrite"),
    [
        ("a, b are non-negative. Find max ab if a+b=1. pls", "a, b are nonnegative. Find max ab if a+b=1."),
        ("It is well-known that 2 is prime. Is 3? thx", "It is well known that 2 is prime. Is 3?"),
        ("find the the area of circle radius 3", "Find the area of circle radius 3"),
        ("In 3 hour he walk 12 km. how fast he is?", "In 3 hours he walks 12 km. How fast is he?"),
        ("Angle is 30 degrees. sin of it? thanks", r"Angle is $30^\circ$. sin of it?"),
        ("What is 3 plus 4? thanks", "What is 3+4?"),
        ("The point is (3,100), hi. Is it on the line?", "The point is (3, 100). Is it on the line?"),
        ("a>=b>0 , prove a/b >= 1 . ty", r"$a\ge b>0$, prove $\frac{a}{b}\ge 1$."),
        ("Найдите х, если 3х=9. Спасибо!", "Найдите $x$, если $3x=9$."),
        ("(1/2+3/4)*2 = ? pls help", r"Find the value of $(1/2+3/4)\cdot 2$."),
    ],
)
def test_mended_grammar_and_formulas_are_never_refused(post: str, rewrite: str) -> None:
    assert outcome(post, rewrite) != "refused"


@pytest.mark.parametrize(
    ("rewritten", "reason"),
    [
        ("", "empty"),
        ("```\n```", "empty"),
        ("I'm sorry, I cannot help with that.", "other words"),
        ("Example 1:\n\nWhat is 3+4?", "new number"),
        (EXAMPLE[1], "too long"),
        ("Сколько будет 3+4?", "other script"),
        ("What is 3+4? " * 9, "too long"),
        ("What is $3+4?", "cut"),
        ("What is 3+4+5?", "new number: 5"),
        ("What is 3-4?", "new formula"),
        ("What is 3<4?", "new formula"),
        ("What 3+4?", "gap"),
    ],
)
def test_reasons_name_the_rule_and_what_was_found(rewritten: str, reason: str) -> None:
    judgement = judge_by_rules("Hello! What is 3+4? Thanks", tidy(rewritten))
    assert judgement.outcome == "refused"
    assert judgement.reason.startswith(reason)
    assert judgement.decided_by == f"rule {reason.partition(':')[0]}"


@pytest.mark.parametrize("answer", ["Output:\nWhat is 3+4?", "```text\nWhat is 3+4?\n```", " What is 3+4? "])
def test_wrapping_is_taken_off(answer: str) -> None:
    assert tidy(answer) == "What is 3+4?"


def test_a_post_without_a_problem_is_known() -> None:
    none = "There is no math problem in this post."
    assert judge_by_rules("Thank you all for the great discussion, this community is the best!", none).no_problem
    assert not judge_by_rules("Thank you all! What is the largest prime?", none).no_problem


def test_what_is_too_long_to_judge_is_refused() -> None:
    assert judge_by_rules("What is 3+4? " + "x" * 10_000, "What is 3+4?").reason.startswith("too long to judge")


def test_edits_say_where_and_what() -> None:
    post = "Hi! Let n be a non-negative integer with n < 5 cm. Is 3 a choice? (A) yes (B) no"
    found = edits(post, "Let n be a negative integer with n < 7. Is 3 a choice? (A) yes")
    assert [(edit.kind, edit.place) for edit in found] == [
        ("removed", "start"),
        ("removed", "middle"),
        ("replaced", "middle"),
        ("removed", "end"),
    ]
    assert [edit.holds for edit in found[1:]] == [
        ["negation non", "sign -"],
        ["number 5", "number 7", "unit cm"],
        ["choice (B)", "negation no", "symbol B"],
    ]
    assert hints(found) == [str(edit) for edit in found[1:]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"same": true, "differences": []}', "accepted"),
        ('```json\n{"same": true, "differences": []}\n```', "accepted"),
        ('{"same": false, "differences": ["lost: n > 0"]}', "refused"),
        ('{"same": true, "differences": ["lost: n > 0"]}', "undecided"),
        ('{"same": false, "differences": []}', "undecided"),
        ('{"same": "true", "differences": []}', "undecided"),
        ('{"same": true}', "undecided"),
        ('{"same": true, "differences": [], "sure": 1}', "undecided"),
        ('{"same": true, "differences": [1]}', "undecided"),
        ('Sure: {"same": true, "differences": []}', "undecided"),
        ("[]", "undecided"),
        ("", "undecided"),
    ],
)
def test_only_the_json_that_was_asked_for_is_a_verdict(answer: str, expected: str) -> None:
    assert read_verdict(answer).outcome == expected


def test_the_verifier_sees_both_texts_as_data_and_the_hints() -> None:
    message = verify_message('post "}', "text", ["look here"])
    assert json.loads(message.removeprefix(PROMPT)) == {"post": 'post "}', "text": "text", "look_at": ["look here"]}


def test_the_version_covers_every_file_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rules.py", "other.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(rules, "__file__", str(tmp_path / "rules.py"))
    versions = []
    for text in ("1", "2", "1"):
        (tmp_path / "other.py").write_text(text)
        versions.append(rules.judge_version.__wrapped__())
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 3+4?", []),
        ("What is $f(1)$? What is $f(2)$?", ["several questions"]),
        ("Let $n=3$. (1) Find $a$. (2) Find $b$.", ["several questions"]),
        ("Find the area of the triangle shown below.", ["image"]),
        ("Find $x$ in the figure. ![](a.png)", ["image"]),
        ("What is the graph of $f(1)+f(2)$?", []),
        ("Great community here.", ["fragment"]),
        ("Find $x$ with the numbers of the previous problem.", ["fragment"]),
        ("A tank holds 40 liters and", ["fragment"]),
    ],
)
def test_flags(question: str, expected: list[str]) -> None:
    assert flags(question) == expected


def test_an_image_that_only_the_post_speaks_of_is_flagged() -> None:
    assert flags("In square $ABCD$, find $x$.", "As shown in the figure, in square $ABCD$, find $x$.") == ["image"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_get_a_judgement(post: str, rewrite: str) -> None:
    assert outcome(post, rewrite) in {"accepted", "refused", "undecided"}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_tokens_stand_where_they_say(text: str) -> None:
    assert outcome(text, text) in {"accepted", "refused"}
    for edit in edits(text, ""):
        assert edit.before in text


HOSTILE = (
    "$", "(", " ", "[hide]", "\\[", "**", "my ", "\n", "(20 ", "http://", "@", "a@", "{", "{}", "<b ", "?", "$x$", ".\n", "1. ",
    "\\text{", "I ", "A. ", "x=1 ", "_ ", "\\underline{", "1,000", "a b ",
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", HOSTILE)
def test_repeated_pieces_do_not_hang(piece: str) -> None:
    text = (piece * 10_000)[:9_990]
    for other in (text + "b", "b" + text[: len(text) // 2] + "b", text[:3000] + "b" + text[5000:]):
        assert outcome(text, other) in {"accepted", "refused", "undecided"}


@pytest.mark.skipif(not REAL, reason="CURIOSFT_BENCHMARKS names no folder with the benchmarks' rows")
@pytest.mark.parametrize("name", ["aime24", "aime25", "amc", "math500", "olympiadbench"])
def test_real_questions_behind_a_label_are_accepted_and_spoiled_ones_never(name: str) -> None:
    questions = [problem.question for problem in load_benchmark(name, Eval(data={name: f"{REAL}/{name}.jsonl"}))]
    accepted = [outcome(f"Problem 3. (10 points) {one}", one) == "accepted" for one in questions]
    assert sum(accepted) >= 0.85 * len(accepted)
    draw = random.Random(0)
    spoiled = [pair for one in questions for pair in plant(one, draw) if pair.id != NONE]
    wrong = [pair for pair in spoiled if outcome(f"Problem 3. (10 points) {pair.post}", pair.rewrite) == "accepted"]
    assert len(wrong) <= 0.01 * len(spoiled), wrong
