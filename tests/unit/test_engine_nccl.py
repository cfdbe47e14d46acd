"""The hand-over by nccl as far as it can be seen without a GPU: the installed vLLM has what is called, in that order."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from torch import nn

from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines import nccl_transfer as nccl
from curiosft_cli.engine.vllm_engines.remote import RemoteEngine
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import BAD_INPUT, MISSING, CurioError
from curiosft_cli.train.shards import WholeWeights

transfer = pytest.importorskip("vllm.distributed.weight_transfer")
requests = pytest.importorskip("requests")

URLS = ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What vLLM's own client would have sent to the servers: (address, body)."""
    sent: list[tuple[str, Any]] = []

    def post(url: str, json: Any = None, timeout: float = 0.0) -> Any:
        sent.append((url, json))
        answer = requests.Response()
        answer.status_code = 200
        return answer

    monkeypatch.setattr(requests, "post", post)
    return sent


def test_without_a_gpu_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CurioError, match="needs a CUDA GPU") as raised:
        nccl.require_nccl()
    assert raised.value.exit_code == BAD_INPUT
    with pytest.raises(CurioError, match=r"rl\.servers is empty"):
        load("grpo", ["rl.server_sync=nccl"])


def test_vllms_own_trainer_side_drives_the_whole_round(
    asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the wire is the installed vLLM: its factory, its handshake, its comparison of what was announced
    with what is walked, and its HTTP client. The second server's two workers are numbered after the first one's four.
    """
    from vllm.distributed.weight_transfer import nccl_engine

    sent: list[str] = []
    monkeypatch.setattr(nccl, "require_nccl", lambda: None)
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: object())
    monkeypatch.setattr(
        nccl_engine, "packed_nccl_broadcast_producer", lambda *, iterator, **_: sent.extend(n for n, _ in iterator)
    )
    opened = nccl.NcclTransfer(URLS, [4, 2], WholeWeights(nn.Linear(2, 3)), sender=True, limit_s=1.0)
    init = {url: body["init_info"] for url, body in asked}
    assert {url: (info["rank_offset"], info["world_size"]) for url, info in init.items()} == {
        f"{URLS[0]}/init_weight_transfer_engine": (1, 7),
        f"{URLS[1]}/init_weight_transfer_engine": (5, 7),
    }
    assert all(info["master_address"] == "127.0.0.1" for info in init.values())

    for _ in range(2):
        asked.clear()
        sent.clear()
        opened.send()
        assert sent == ["bias", "weight"]
        for base in URLS:
            routes = [url.removeprefix(base) for url, _ in asked if url.startswith(base)]
            assert routes == ["/start_weight_update", "/update_weights", "/finish_weight_update"]
        told = [body["update_info"] for url, body in asked if url.endswith("/update_weights")]
        assert told == [
            {"names": ["bias", "weight"], "dtype_names": ["float32"] * 2, "shapes": [[3], [3, 2]]}
        ] * 2  # fmt: skip


def test_other_ranks_gather_and_stay_silent(asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []

    class Watched(WholeWeights):
        def __iter__(self) -> Any:
            walked.append("walk")
            return super().__iter__()

    monkeypatch.setattr(nccl, "require_nccl", lambda: None)
    opened = nccl.NcclTransfer(URLS, [1, 1], Watched(nn.Linear(2, 3)), sender=False, limit_s=1.0)
    opened.send()
    opened.close()
    assert walked == ["walk"] and asked == []


def test_the_servers_have_these_routes() -> None:
    from vllm.entrypoints.rl.online.api_router import router

    routes = {getattr(route, "path", "") for route in router.routes}
    assert routes >= {
        "/get_world_size", "/init_weight_transfer_engine", "/start_weight_update", "/update_weights",
        "/finish_weight_update",
    }  # fmt: skip


def test_a_server_that_does_not_take_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(url: str, json: Any = None, timeout: float = 0.0) -> Any:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(requests, "post", post)
    with pytest.raises(CurioError, match=r"127\.0\.0\.1:8000 does not take part") as raised:
        nccl.ServerGroup(URLS, [1, 1], 1.0).start_weight_update()
    assert raised.value.exit_code == MISSING


@pytest.mark.parametrize("writer", [True, False])
def test_the_engine_sends_instead_of_writing_and_forgets_prefixes(
    writer: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    done: list[str] = []

    class Sent:
        def __init__(self, urls: Any, workers: Any, state: Any, *, sender: bool, limit_s: float) -> None:
            done.append(f"open {workers} {sender}")

        def send(self) -> None:
            done.append("send")

        def close(self) -> None:
            done.append("close")

    def answer(self: RemoteEngine, url: str, route: str, body: Any = None) -> Any:
        done.append(route)
        choice = {"logprobs": {"token_logprobs": [-1.0]}}
        return {"data": [{"id": "m"}], "world_size": 2, "choices": [choice]}

    monkeypatch.setattr("curiosft_cli.engine.vllm_engines.remote.NcclTransfer", Sent)
    monkeypatch.setattr(RemoteEngine, "_call", answer)
    engine = RemoteEngine(
        URLS, EngineSpec("m", 8), weights=tmp_path / "weights", writer=writer, over_nccl=WholeWeights(nn.Linear(2, 3))
    )
    assert done[-1] == f"open [2, 2] {writer}"
    done.clear()
    engine.load_weights(3, WholeWeights(nn.Linear(2, 3)))
    engine.close()
    assert done == ["send", *["/reset_prefix_cache"] * (2 * writer), "close"]
    assert not any(tmp_path.iterdir())


def test_the_own_address_is_the_one_on_the_way_to_the_server() -> None:
    assert nccl.own_address("http://127.0.0.1:8000") == "127.0.0.1"
    with socket.socket() as probe:
        probe.bind((nccl.own_address("http://127.0.0.1:1"), 0))
