"""Sampling as `curiosft eval` does it against bare `LLM.generate` on the same requests, interleaved in one process.

Prints one JSON line. Both take token ids, per-request seeds and the same sampling; ours also decodes and saves each
completion as it finishes. Entropy and grading come afterwards and are not part of it. Each side has an engine of its
own: give a small model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curiosft_cli.engine.base import Sampling

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder or hub id with a chat template")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from curiosft_cli.data.arithmetic import generate
    from curiosft_cli.engine.base import Sampling, sample_seed
    from curiosft_cli.engine.open_engine import open_engine
    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.evaluation.samples import Sample, sample_row
    from curiosft_cli.run.files import JsonLines
    from curiosft_cli.run.sections import Model
    from curiosft_cli.train.encode import PromptFormat, decode_completion, encode_prompt, stop_token_ids
    from curiosft_cli.train.load import load_tokenizer

    section = Model(path=options.model, system_prompt="")
    tokenizer = load_tokenizer(options.model, section)
    problems = generate("test", options.questions)
    prompts = [encode_prompt(tokenizer, problem, PromptFormat.from_config(section)) for problem in problems]
    requests = [(index, j) for index in range(len(problems)) for j in range(options.samples)]
    ids = [prompts[index] for index, _ in requests]
    stops = stop_token_ids(tokenizer, options.model)
    context = max(map(len, prompts)) + options.max_tokens
    sampling = Sampling(0.6, 0.95, options.max_tokens, stops, with_logprobs=False)
    engine = open_engine("vllm", EngineSpec(options.model, context, cpu_kv_cache_gib=0.5))
    bare = bare_engine(options.model, context)

    def ours(seeds: list[int]) -> int:
        tokens = 0
        with tempfile.TemporaryDirectory() as folder, JsonLines(Path(folder) / "samples.jsonl") as file:
            for index, completion in engine.stream(ids, sampling, seeds):
                question, j = requests[index]
                text = decode_completion(tokenizer, completion.token_ids)
                found = Sample(text, len(completion.token_ids), "stop", completion.token_ids, prefilled=True)
                file.append(sample_row(str(question), j, found))
                tokens += len(completion.token_ids)
        return tokens

    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    counts: dict[str, list[int]] = {"ours": [], "bare": []}
    for number in range(options.rounds + 1):
        seeds = [sample_seed(number, "bench", str(question), j) for question, j in requests]
        for name, run in (("bare", lambda chosen: bare(ids, chosen, sampling)), ("ours", ours)):
            start = time.perf_counter()
            tokens = run(seeds)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
                counts[name].append(tokens)
    print(
        json.dumps(
            {
                "bench": "eval_overhead",
                "requests": len(requests),
                "tokens_per_round": {name: round(statistics.fmean(found)) for name, found in counts.items()},
                "seconds": {name: round(statistics.median(found), 3) for name, found in seconds.items()},
                "ratio": round(statistics.median(seconds["ours"]) / statistics.median(seconds["bare"]), 3),
            }
        )
    )
    engine.close()


def bare_engine(model: str, context: int) -> Callable[[list[list[int]], list[int], Sampling], int]:
    """Return `run(prompts, seeds, sampling) -> tokens` over vLLM's `LLM.generate`."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model,
        max_model_len=context,
        enforce_eager=True,
        enable_chunked_prefill=False,
        max_num_batched_tokens=max(context, 4096),
        kv_cache_memory_bytes=2**29,
        generation_config="vllm",
    )

    def run(prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> int:
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=-1,
                max_tokens=sampling.max_tokens,
                stop_token_ids=list(sampling.stop_token_ids),
                seed=seed,
            )
            for seed in seeds
        ]
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return run


if __name__ == "__main__":
    main()
