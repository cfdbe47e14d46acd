"""The paper's two prompts, word for word (Tables 7 and 8), and the chat messages made from them."""

# ruff: noqa: E501 (the prompts keep their line breaks)
from __future__ import annotations

from string import ascii_uppercase

from curiosft_cli.data.records import Problem

QUESTION = "{question}"

# Table 7: the system message of training, reinforcement learning and evaluation.
SYSTEM_PROMPT = r"""You are an exceptional mathematician. Your task is to solve mathematical questions through a systematic and thorough reasoning process. This involves careful analysis, exploration of possible approaches, verification of intermediate steps, critical reassessment, and iterative refinement of your reasoning process.

Structure your response in two distinct sections: "Thought" and "Solution". In the "Thought" section, present your detailed reasoning process in the following format:
<think>
Your detailed reasoning, including brainstorming, logical deductions, verification, and refinement of ideas.
</think>
This section must conclude with "</think>", and should reflect deep, reflective, and self-correcting thinking process.
In the "Solution" section, following the "</think>", concisely draw the final, logical, and accurate answer from your reasoning.

Please output your final answer within \boxed{ }."""

# Table 8: the one user message of `rephrase`.
REPHRASE_PROMPT = r"""I will provide a post from a math-related forum that contains a math problem. Your task is to extract only the math problem statement and remove any irrelevant or noisy content (e.g., commentary, solutions, chat, metadata). Keep the original wording and question type intact, and present the extracted problem clearly and concisely. Remove any redundant context, personal commentary, anecdotes, or unrelated information. But make sure not to change the meaning of the problem and keep all necessary mathematical or technical details.

Here are a few examples.

Example 1:

Input:

What is the remainder of $8^6 + 7^7 + 6^8$ is divided by 5?

no calculator, of course, paper isn't needed either, but sure.

Output:

What is the remainder of $8^6 + 7^7 + 6^8$ when divided by 5?

Example 2:

Input:

(20 points) Let x, y be non-zero real numbers, and satisfy $\frac{x \sin \frac{\pi}{5} + y \cos \frac{\pi}{5}}{x \cos \frac{\pi}{5} - y \sin \frac{\pi}{5}} = \tan \frac{9\pi}{20}$. (1) Find the value of $\frac{y}{x}$;

Output:

Let x, y be non-zero real numbers, and satisfy $\frac{x \sin \frac{\pi}{5} + y \cos \frac{\pi}{5}}{x \cos \frac{\pi}{5} - y \sin \frac{\pi}{5}} = \tan \frac{9\pi}{20}$. Find the value of $\frac{y}{x}$.

Now, here is the text you need to extract the problem.

Input:

{question}

Output:"""


def messages(problem: Problem, *, system: str | None, prefix: str) -> list[dict[str, str]]:
    """The chat messages that ask a model this problem.

    Args:
        problem: the question. Options of a multiple-choice question follow it, one `A) text` per line.
        system: the system message, if the problem has none of its own; None is that of Table 7, "" leaves it out.
        prefix: text before the question in the user message; not added to a question that starts with it.
    """
    content = problem.question if problem.question.startswith(prefix) else prefix + problem.question
    if problem.choices:
        options = zip(ascii_uppercase[: len(problem.choices)], problem.choices, strict=True)
        content += "\n\n" + "\n".join(f"{letter}) {text}" for letter, text in options)
    system = problem.system or (SYSTEM_PROMPT if system is None else system)
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": content}]


def rephrase_message(question: str) -> str:
    """Table 8 with the question inserted. `str.format` would fail: questions are full of braces."""
    before, _, after = REPHRASE_PROMPT.partition(QUESTION)
    return before + question + after
