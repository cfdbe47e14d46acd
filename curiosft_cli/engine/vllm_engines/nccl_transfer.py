"""Weights to vLLM servers over nccl. All calls to vLLM's own weight transfer stand in this file.

That interface changes between releases. This file has not been run on GPUs. Tests check names, signatures and the
order of the calls against the installed vLLM.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from curiosft_cli.engine.vllm_engines.embedded import require_vllm
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.processes import free_port

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.distributed.weight_transfer import WeightSource

    from curiosft_cli.engine.weight_handover import Weights


def require_nccl() -> None:
    """Refuse a machine that cannot take part.

    Raises:
        CurioError: vLLM is not installed (exit code 3), or there is no CUDA GPU here (exit code 2).
    """
    require_vllm()
    import torch

    if not torch.cuda.is_available():
        raise CurioError(
            "rl.server_sync = nccl needs a CUDA GPU in the training process, there is none",
            "Set rl.server_sync=folder, which hands the weights over through files.",
        )


class NcclTransfer:
    """Broadcasts the trainer's weights from its first rank to every worker of every server.

    Every rank opens one and sends at the same time, since all of them gather sharded weights. Only the first rank
    calls the servers.

    Args:
        urls: base URLs of the servers.
        workers: how many worker processes each server has.
        state: the weights, as they are whenever they are sent.
        sender: whether this is the trainer's first rank.
        limit_s: seconds that one call may take.
    """

    def __init__(
        self, urls: Sequence[str], workers: Sequence[int], state: Weights, *, sender: bool, limit_s: float
    ) -> None:
        require_nccl()
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        host = own_address(urls[0])
        self._trainer = WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=host,
                master_port=free_port(host),
                world_size=1 + sum(workers),
                rank=0 if sender else 1,
            ),
            client=ServerGroup(urls, workers, limit_s),
            source=weight_source(state),
        )

    def send(self) -> None:
        """Replace the weights of all servers; the caller makes them forget their prefixes."""
        self._trainer.send_weights()

    def close(self) -> None:
        """Leave the communicator."""
        self._trainer.shutdown()


class ServerGroup:
    """All servers as the one that vLLM's trainer side expects (`VLLMWeightSyncClient`), called at the same time."""

    def __init__(self, urls: Sequence[str], workers: Sequence[int], limit_s: float) -> None:
        from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient

        self._clients = [HTTPVLLMWeightSyncClient(url, timeout=limit_s) for url in urls]
        self._before = [0, *accumulate(workers[:-1])]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each server's workers are numbered after those of the servers before it."""
        infos = [{**init_info, "rank_offset": init_info["rank_offset"] + before} for before in self._before]
        self._together(lambda number: self._clients[number].init_weight_transfer_engine(infos[number]))

    def start_weight_update(self) -> None:
        self._together(lambda number: self._clients[number].start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        self._together(lambda number: self._clients[number].update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._together(lambda number: self._clients[number].finish_weight_update(weight_version))

    def _together(self, call: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(len(self._clients)) as pool:
            calls = [pool.submit(call, number) for number in range(len(self._clients))]
            for client, done in zip(self._clients, calls, strict=True):
                try:
                    done.result()
                except OSError as error:  # what requests raises is one
                    raise CurioError(
                        f"the vLLM server {client.base_url} does not take part in the weight transfer: {error}",
                        'Start it with VLLM_SERVER_DEV_MODE=1 and --weight-transfer-config \'{"backend": "nccl"}\'.',
                        MISSING,
                    ) from None


def weight_source(state: Weights) -> WeightSource:
    """The weights in vLLM's interface: names and shapes first, without a gather; then one walk for each transfer."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class Source(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(name, dtype, shape) for name, dtype, shape in state.shapes()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return iter(state)

    return Source()


def own_address(url: str) -> str:
    """This machine's address for the server at `url`; no packet is sent."""
    place = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((place.hostname, place.port or 80))
        return probe.getsockname()[0]
