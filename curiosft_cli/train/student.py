"""The student as one module whose forward pass ends in the loss, so that data parallel and sharding wrap it whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from curiosft_cli.train.head.cpu_kernels import kernels_for
from curiosft_cli.train.head.fused import HeadRows, fused_head
from curiosft_cli.train.head.head_pass import HeadPass
from curiosft_cli.train.head.kernels import Kernels
from curiosft_cli.train.head.scores import ScoredRows, TeacherRows, head_logp, teacher_logp
from curiosft_cli.train.load import body_and_head, layers_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from curiosft_cli.objectives import BoundObjective
    from curiosft_cli.objectives.temperature import TemperatureSettings
    from curiosft_cli.train.batches import Pack


BESIDE_FORWARD = ("scored", "tempered", "states")
"""Methods of `Student` that need its weights whole, as `forward` does; they are registered with sharding."""


class Student(nn.Module):
    """A causal language model with the chunked head in place of its own.

    Args:
        model: the model that is trained; its parameters are this module's.
        chunk: supervised positions per step of the head.
        compute_dtype: dtype of the large products; weights stay as they are.
        compiled: run the transformer's layers through torch.compile.
        kernels: the head's passes over the vocabulary; None takes those for the model's device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        chunk: int,
        compute_dtype: torch.dtype,
        compiled: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk
        self.compute_dtype = compute_dtype
        self.kernels = kernels or kernels_for(model.device)
        for layer in layers_of(model) if compiled else ():
            layer.compile(dynamic=True)

    def forward(
        self,
        pack: Pack,
        objective: BoundObjective,
        extra: Mapping[str, Tensor],
        weights: Tensor | Sequence[Tensor],
        head_pass: HeadPass = HeadPass(),
    ) -> tuple[Tensor, HeadRows]:
        """The pack's share of the step's loss (its reduction is in `weights` [N]) and its values per token."""
        hidden, head_weight = self._hidden(pack)
        return fused_head(
            hidden,
            head_weight,
            pack.labels,
            objective,
            extra=extra,
            weights=weights,
            chunk=self.chunk,
            compute_dtype=self.compute_dtype,
            head_pass=head_pass,
            kernels=self.kernels,
        )

    @torch.no_grad()
    def tempered(self, pack: Pack, settings: TemperatureSettings) -> TeacherRows:
        """The pack's supervised tokens by a teacher with the weights that the module has now (Eq. 4, 7, 8)."""
        hidden, head_weight = self._hidden(pack)
        return teacher_logp(
            hidden,
            head_weight,
            pack.labels,
            settings,
            chunk=self.chunk,
            compute_dtype=self.compute_dtype,
            kernels=self.kernels,
        )

    @torch.no_grad()
    def scored(self, pack: Pack, head_pass: HeadPass = HeadPass()) -> ScoredRows:
        """Log-probabilities [N] in nats of the pack's supervised tokens, without a gradient; see `head_logp`."""
        hidden, head_weight = self._hidden(pack)
        return head_logp(
            hidden,
            head_weight,
            pack.labels,
            chunk=self.chunk,
            compute_dtype=self.compute_dtype,
            head_pass=head_pass,
            kernels=self.kernels,
        )

    @torch.no_grad()
    def states(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] that predict the supervised tokens, and the head weight [V, H] that goes with them."""
        hidden, head_weight = self._hidden(pack)
        weight = head_weight.detach()
        # Sharding frees the gathered weight after this call.
        return hidden, weight.clone() if isinstance(self, FSDPModule) else weight

    def _hidden(self, pack: Pack) -> tuple[Tensor, nn.Parameter]:
        body, head_weight = body_and_head(self.model)
        with self._autocast(pack.input_ids.device.type):
            hidden = body(input_ids=pack.input_ids, position_ids=pack.position_ids, packed_lengths=pack.lengths)
        return hidden[0, pack.predictors], head_weight

    def _autocast(self, device_type: str) -> AbstractContextManager[object]:
        parameter = next(self.model.parameters())
        # A copy in lower precision than the products multiplies in its own.
        if self.compute_dtype in (parameter.dtype, torch.float32):
            return nullcontext()
        return torch.autocast(device_type, self.compute_dtype)
