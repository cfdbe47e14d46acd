"""The paper's three families, prepared as `curiosft model prepare` leaves them: prompt, stops, loss, and one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import build_family

from curiosft_cli.data.records import Problem
from curiosft_cli.objectives import SFT_OBJECTIVES
from curiosft_cli.run.config import load
from curiosft_cli.run.log import Console
from curiosft_cli.run.sections import Model, TeacherSettings
from curiosft_cli.tools.model.prepare import prepare_model
from curiosft_cli.train.batches import make_pack
from curiosft_cli.train.encode import PromptFormat, encode_row, end_token_id, stop_token_ids
from curiosft_cli.train.load import load_model, load_tokenizer
from curiosft_cli.train.student import Student
from curiosft_cli.train.teacher import Teacher

PROBLEMS = [
    Problem("1", "What is 1+1?", "2", response="One and one.\n</think>\n\n\\boxed{2}"),
    Problem("2", "What is 2+3?", "5", response="Two and three is five.\n</think>\n\n\\boxed{5}"),
]
END = {"qwen2": "<|im_end|>", "qwen3": "<|im_end|>", "llama": "<|eot_id|>"}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", sorted(END))
def test_a_prepared_model_trains_on_table_7(family: str, tied: bool, tmp_path: Path) -> None:
    config = load("curio", ["data.max_prompt_length=1600", "sft.max_response_length=200"]).config
    prepare_model(str(build_family(tmp_path / "base", family, tied=tied)), tmp_path / "ready", config, Console())
    path = str(tmp_path / "ready")
    tokenizer: Any = load_tokenizer(path, Model())
    model = load_model(path, Model(), dtype=torch.float32, device="cpu").train()
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied

    rows = [encode_row(tokenizer, problem, PromptFormat.from_config(Model()), 200) for problem in PROBLEMS]
    for row, problem in zip(rows, PROBLEMS, strict=True):
        assert tokenizer.decode(row.prompt_ids).endswith("<think>\n")
        assert tokenizer.decode(row.response_ids) == problem.response + END[family]
        assert tokenizer.decode(row.prompt_ids).count(problem.question) == 1
    assert end_token_id(tokenizer) in stop_token_ids(tokenizer, path)

    student = Student(model, chunk=16, compute_dtype=torch.float32)
    pack = make_pack(rows, [0, 1], "cpu")
    plain = []
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.response_ids])
        logp = model(ids, use_cache=False, packed_lengths=(len(row),)).logits[0].log_softmax(-1)
        plain.append(logp[len(row.prompt_ids) - 1 : -1].gather(1, torch.tensor(row.response_ids)[:, None])[:, 0])
    torch.testing.assert_close(student.scored(pack).logp, torch.cat(plain).detach(), atol=2e-5, rtol=1e-4)

    teacher = Teacher(student, TeacherSettings(topk=64))
    extra = {"teacher_logp": teacher.logp(pack).logp}
    loss, seen = student(pack, SFT_OBJECTIVES["curio"].bind(), extra, torch.full((len(pack.labels),), 1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert len(seen.logp) == sum(len(row.response_ids) for row in rows)
