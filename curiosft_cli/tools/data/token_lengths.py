"""Token lengths of prompts and responses, counted in a child process. So the command itself does not load torch.

The child is `python -m curiosft_cli.tools.data.token_lengths`. It answers each line of JSON with a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from curiosft_cli.data.records import Problem
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.text import show

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curiosft_cli.run.sections import Model
    from curiosft_cli.train.encode import PromptFormat

Lengths = list[tuple[int, int]]


class LengthCounter:
    """Counts tokens of one batch of problems after the other, while the caller goes on.

    Raises:
        CurioError: the tokenizer does not exist or has no chat template.
    """

    def __init__(self, settings: Model) -> None:
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "curiosft_cli.tools.data.token_lengths",
                settings.model_dump_json(),
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lengths")
        try:
            self._answer()  # the child is ready, or reports an error
        except BaseException:
            self.close()
            raise

    def submit(self, problems: Sequence[Problem]) -> Future[Lengths]:
        """Lengths of (prompt, response with its end token) for each problem; 0 if there is no response."""
        rows = [asdict(problem) for problem in problems]
        return self._thread.submit(self._count, rows)

    def close(self) -> None:
        """Stop the child."""
        self._child.kill()
        self._child.wait()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _count(self, rows: list[dict[str, Any]]) -> Lengths:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(rows).encode() + b"\n")
        self._child.stdin.flush()
        return [(prompt, response) for prompt, response in self._answer()]

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that counts tokens ended (exit code {self._child.wait()})")
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise CurioError(answer["what"], answer["fix"], answer["exit_code"])
        return answer


def count(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], style: PromptFormat) -> Lengths:
    """The lengths that `encode_row` would give without a limit."""
    from curiosft_cli.train.encode import encode_prompt, response_text

    texts = [response_text(problem.response, style) for problem in problems]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return [
        (len(encode_prompt(tokenizer, problem, style)), len(of) + 1 if text else 0)
        for problem, text, of in zip(problems, texts, ids, strict=True)
    ]


def main() -> None:
    """The child: print `[]` when ready, then one answer for each line. An error is one JSON object."""
    from curiosft_cli.run.processes import die_with_parent
    from curiosft_cli.run.sections import Model
    from curiosft_cli.train.encode import PromptFormat
    from curiosft_cli.train.load import load_tokenizer

    die_with_parent(int(sys.argv[2]))
    out, sys.stdout = sys.stdout, sys.stderr  # output of libraries must not be read as an answer
    settings = Model.model_validate_json(sys.argv[1])
    try:
        tokenizer = load_tokenizer(settings.path, settings)
    except CurioError as error:
        show(json.dumps({"what": error.what, "fix": error.fix, "exit_code": error.exit_code}), file=out)
        return
    tokenizer.model_max_length = int(1e30)  # no warning about long texts
    style = PromptFormat.from_config(settings)
    show("[]", file=out)
    for line in sys.stdin:
        rows: list[dict[str, Any]] = json.loads(line)
        for row in rows:
            row["choices"] = tuple(row["choices"])
        problems = [Problem(**row) for row in rows]
        show(json.dumps(count(tokenizer, problems, style)), file=out)


if __name__ == "__main__":
    main()
