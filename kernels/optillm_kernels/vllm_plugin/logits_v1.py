"""The recorder as a logits processor of vLLM's first model runner, which is the one on CPUs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from optillm_kernels.vllm_plugin.recorder import Ask, Recorder

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.config import VllmConfig


@dataclass(slots=True)
class _Request:
    slot: int
    output: list[int]  # the runner's own list: how many tokens there are already
    measured: int = -1  # the last position measured


class RecordingProcessor(LogitsProcessor):  # type: ignore[misc]
    """Measures the rows whose requests ask; see `recorder`."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        slots = vllm_config.scheduler_config.max_num_seqs
        self._recorder = Recorder(slots, torch.device(device))
        self._free = list(range(slots))
        self._at: dict[int, _Request] = {}  # by row of the batch

    def is_argmax_invariant(self) -> bool:
        """No: it ends sequences."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests through the rows of the batch."""
        if batch_update is None:
            return
        self._leave(batch_update.removed)
        self._leave(index for index, *_ in batch_update.added)
        for index, params, _, output in batch_update.added:
            if ask := Ask.of(params.extra_args):
                self._at[index] = _Request(self._free.pop(), output)
                self._recorder.admit(self._at[index].slot, ask)
        for source, target, direction in batch_update.moved:
            moved, other = self._at.pop(source, None), self._at.pop(target, None)
            if moved:
                self._at[target] = moved
            if other and direction == MoveDirectionality.SWAP:
                self._at[source] = other
            elif other:
                self._free.append(other.slot)

    def _leave(self, rows: Iterable[int]) -> None:
        for row in rows:
            if gone := self._at.pop(row, None):
                self._free.append(gone.slot)

    def apply(self, logits: Tensor) -> Tensor:
        """The logits, with the rows of sequences that are too unsure masked to their end."""
        if self._at:
            rows = sorted(self._at)
            slots = [self._at[row].slot for row in rows]
            drawn = [self._position(self._at[row]) if row in self._at else -1 for row in range(len(logits))]
            self._recorder.record(logits, rows, slots, self._recorder.moved(drawn))
        return logits

    def _position(self, request: _Request) -> int:
        """Of the token that is about to be drawn."""
        position = len(request.output)
        if position == request.measured:  # only a part of the prompt was prefilled: that token was thrown away
            self._recorder.restart(request.slot)
        request.measured = position
        return position
