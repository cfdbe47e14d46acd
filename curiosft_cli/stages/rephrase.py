"""Clean the questions of a data set with a chat model and the paper's Table 8 prompt.

read the questions
ask for those without a saved answer      (each finished answer is appended and flushed at once)
judge every answer                        (a changed number keeps the original question)
write questions.jsonl in input order, rejected.jsonl, usage.json
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.files import JsonLines, read_jsonl, write_json, write_text
from curiosft_cli.run.launch import run_stage
from curiosft_cli.run.log import Console
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.tasks.prompts import REPHRASE_PROMPT, rephrase_message
from curiosft_cli.tasks.records import Problem
from curiosft_cli.tasks.rewrites import judge
from curiosft_cli.tasks.sources import read_all

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LOCAL = "local"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROMPT_HASH = hashlib.sha256(REPHRASE_PROMPT.encode()).hexdigest()[:16]


def run(config: Config, stage: StageDir) -> None:
    """Ask for every question that has no saved answer, judge all answers, and write the cleaned set."""
    console = Console(stage.log_file)
    problems = read_all(config.data, run_dir=stage.path.parent, sources=config.rephrase.data or config.data.train)
    answers = {row["key"]: row for row in read_jsonl(stage.path / "answers.jsonl")}
    missing = {key(config, problem.question): problem.question for problem in problems}
    missing = {name: question for name, question in missing.items() if name not in answers}
    if missing:
        with endpoint(config, stage) as (base_url, model), JsonLines(stage.path / "answers.jsonl") as file:
            asyncio.run(ask_all(config, base_url, model, missing, file, console))
        answers = {row["key"]: row for row in read_jsonl(stage.path / "answers.jsonl")}
    verdicts = write_questions(config, stage, problems, answers)
    console.say(f"rephrase: {len(problems)} questions: " + ", ".join(f"{n} {name}" for name, n in verdicts.items()))
    console.close()


def key(config: Config, question: str) -> str:
    """Identity of a request: prompt, model, sampling and question. The same question is asked once."""
    settings = config.rephrase
    model = config.model.path if settings.base_url == LOCAL else settings.model
    parts = (PROMPT_HASH, model, settings.temperature, settings.max_completion_length, question)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@contextmanager
def endpoint(config: Config, stage: StageDir) -> Generator[tuple[str, str]]:
    """Base URL and model name to ask; a local server lives as long as the context."""
    if config.rephrase.base_url != LOCAL:
        yield config.rephrase.base_url, config.rephrase.model
        return
    from curiosft_cli.engine.server import serve
    from curiosft_cli.train.load import load_config

    context = getattr(load_config(config.model.path, config.model), "max_position_embeddings", None) or 8192
    with serve(
        config.model.path,
        name=LOCAL,
        log_file=stage.path / "server.log",
        max_model_len=min(context, 4096),
    ) as base_url:
        yield base_url, LOCAL


async def ask_all(
    config: Config, base_url: str, model: str, questions: dict[str, str], file: JsonLines, console: Console
) -> None:
    """Ask for all questions, at most `rephrase.concurrency` at a time, and append each answer as it comes.

    Raises:
        CurioError: exit code 3 when the endpoint refuses the key or stays out of reach; answers so far are kept.
    """
    import openai

    client = _client(config, base_url)
    gate = asyncio.Semaphore(config.rephrase.concurrency)
    done = 0

    async def ask(name: str, question: str) -> None:
        nonlocal done
        async with gate:
            row = await _ask(config, client, model, question)
        file.append({"key": name, **row})
        done += 1
        console.progress(done, len(questions), "rephrase: questions")

    try:
        async with asyncio.TaskGroup() as group:
            for name, question in questions.items():
                group.create_task(ask(name, question))
    except* openai.APIStatusError as errors:
        first = errors.exceptions[0]
        raise CurioError(f"{base_url} answered: {str(first).splitlines()[0]}", _advice(config), MISSING) from None
    except* openai.APIConnectionError as errors:
        reason = errors.exceptions[0].__cause__ or errors.exceptions[0]
        raise CurioError(f"cannot reach {base_url}: {reason}", _advice(config), MISSING) from None
    finally:
        await client.close()


async def _ask(config: Config, client: AsyncOpenAI, model: str, question: str) -> dict[str, Any]:
    started = time.monotonic()
    response = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": rephrase_message(question)}],
        temperature=config.rephrase.temperature,
        max_tokens=config.rephrase.max_completion_length,
    )
    choice = response.choices[0]
    usage = response.usage
    return {
        "answer": choice.message.content or "",
        "finish_reason": choice.finish_reason,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "completion_tokens": usage.completion_tokens if usage else 0,
        "seconds": time.monotonic() - started,
    }


def _client(config: Config, base_url: str) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    variable = config.rephrase.api_key_env
    secret = os.environ.get(variable)
    if not secret and urlparse(base_url).hostname not in LOOPBACK:
        raise CurioError(
            f"the environment variable {variable} is not set", f"export {variable}=..., then run again.", MISSING
        )
    return AsyncOpenAI(
        base_url=base_url,
        api_key=secret or "none",
        timeout=config.rephrase.timeout_s,
        max_retries=config.rephrase.max_attempts - 1,
    )


def _advice(config: Config) -> str:
    return f"Check rephrase.base_url, rephrase.model and {config.rephrase.api_key_env}; finished answers are kept."


def write_questions(
    config: Config, stage: StageDir, problems: list[Problem], answers: dict[str, dict[str, Any]]
) -> Counter[str]:
    """Judge the answers and write the three result files; returns how many questions got which verdict."""
    verdicts: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for problem in problems:
        answer = answers[key(config, problem.question)]
        verdict = judge(problem.question, answer["answer"])
        verdicts[verdict.outcome] += 1
        accepted = verdict.outcome == "accepted"
        kept.append(
            asdict(problem)
            | {
                "question": answer["answer"].strip() if accepted else problem.question,
                "original_question": problem.question,
                "rephrase": {
                    "model": config.model.path if config.rephrase.base_url == LOCAL else config.rephrase.model,
                    "prompt_hash": PROMPT_HASH,
                    "verdict": verdict.outcome,
                    "reason": verdict.reason,
                },
            }
        )
        if not accepted:
            rejected.append(
                {"id": problem.id, "reason": verdict.reason, **asdict(problem), "answer_given": answer["answer"]}
            )
    write_text(stage.path / "questions.jsonl", _lines(kept))
    write_text(stage.path / "rejected.jsonl", _lines(rejected))
    write_json(
        stage.path / "usage.json",
        {
            "requests": len(answers),
            "prompt_tokens": sum(row["prompt_tokens"] for row in answers.values()),
            "completion_tokens": sum(row["completion_tokens"] for row in answers.values()),
            "verdicts": dict(verdicts),
        },
    )
    return verdicts


def _lines(rows: list[dict[str, Any]]) -> str:
    import json

    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    run_stage(run)
