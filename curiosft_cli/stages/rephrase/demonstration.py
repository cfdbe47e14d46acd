"""`rephrase.base_url = "demonstration"`: a script on this machine answers in place of a model.

It shows what the stage does where no model is at hand. It knows only the noise that the built-in generator puts around
its questions, so it is of no use for other data. In some answers it changes a number on purpose: these are refused.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from curiosft_cli.data.arithmetic import without_noise
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.stages.rephrase.judge.verify import PROMPT as VERIFY_PROMPT

DEMONSTRATION = "demonstration"
BEFORE_POST, AFTER_POST = REPHRASE_PROMPT.split("{question}")


@contextmanager
def demonstration_server() -> Generator[str]:
    """Serve the script on a free loopback port; yield the base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Script) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True, name=DEMONSTRATION)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def reply(message: str, wrong: int = 8) -> str:
    """The answer to a request for a rewrite, or to one for a verdict.

    Args:
        wrong: one rewrite in so many has a changed number.
    """
    if message.startswith(VERIFY_PROMPT):
        texts = json.loads(message.removeprefix(VERIFY_PROMPT))
        same = without_noise(texts["post"]) == texts["text"]
        return json.dumps({"same": same, "differences": [] if same else ["not the words of the post"]})
    post = message.removeprefix(BEFORE_POST).partition(AFTER_POST)[0]
    words = without_noise(post).split(" ")
    numbers = [place for place, word in enumerate(words) if word.isdigit()]
    if numbers and hashlib.sha256(post.encode()).digest()[0] % wrong == 0:
        words[numbers[0]] += "7"
    return " ".join(words)


class _Script(BaseHTTPRequestHandler):
    """Answers chat completions."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": reply(body["messages"][-1]["content"])}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": DEMONSTRATION, "choices": [choice]}
        content = json.dumps(answer | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
