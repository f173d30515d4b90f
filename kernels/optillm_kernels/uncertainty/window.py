"""The mean confidence of each running sequence's last tokens, kept on the device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from optillm_kernels.backend import use_triton
from optillm_kernels.uncertainty.types import Windowed

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


class ConfidenceWindow:
    """A ring of the last confidences for each slot, and the least mean of a whole ring. Nothing here waits.

    The sum is kept in float64, of the finite ones: what is infinite is counted, and forgotten when it leaves. NaN
    is left out. Source: DeepConf, section 3.3 (online early stopping).

    Args:
        slots: sequences that may run at once.
        window: tokens of the longest group.
        device: of the logits.
    """

    def __init__(self, slots: int, window: int, device: torch.device | str) -> None:
        self.rings = torch.zeros(slots, window, dtype=torch.float32, device=device)
        self.sums = torch.zeros(slots, dtype=torch.float64, device=device)
        self.lowest = torch.full((slots,), math.inf, dtype=torch.float64, device=device)
        self.infinite = torch.zeros(slots, dtype=torch.int64, device=device)
        self.counts = torch.zeros(slots, dtype=torch.int64, device=device)
        self.windows = torch.ones(slots, dtype=torch.int64, device=device)
        self.thresholds = torch.full((slots,), math.nan, dtype=torch.float32, device=device)

    def reset(self, slots: Int[Tensor, " n"], windows: Int[Tensor, " n"], thresholds: Float[Tensor, " n"]) -> None:
        """New sequences take slots; their windows are from 1 to the longest, and a threshold of NaN is none."""
        self.windows[slots] = windows.clamp(1, self.rings.shape[1])
        self.thresholds[slots] = thresholds.float()
        self.sums.index_fill_(0, slots, 0.0)
        self.lowest.index_fill_(0, slots, math.inf)
        self.infinite.index_fill_(0, slots, 0)
        self.counts.index_fill_(0, slots, 0)

    def push(self, slots: Int[Tensor, " rows"], confidence: Float[Tensor, " rows"]) -> Windowed:
        """The next token of each of these slots; one that is there twice says nothing of use."""
        if use_triton(confidence):
            from optillm_kernels.uncertainty.triton import push

            with torch.cuda.device_of(confidence):  # type: ignore[no-untyped-call]
                return push(self, slots, confidence)
        return self._push(slots, confidence.float())

    def _push(self, slots: Int[Tensor, " rows"], value: Float[Tensor, " rows"]) -> Windowed:
        window, count = self.windows[slots], self.counts[slots]
        known = ~value.isnan()
        at = count % window
        old = self.rings[slots, at].where(count >= window, 0.0)
        new = value.where(known, old)
        total = self.sums[slots] + known * (_finite(new) - _finite(old))
        infinite = self.infinite[slots] + new.isinf().long() - old.isinf().long()
        count = count + known
        mean = (total / count.minimum(window)).masked_fill(infinite > 0, math.inf)
        full = count >= window
        lowest = self.lowest[slots].minimum(mean.where(full, math.inf))
        self.rings[slots, at] = torch.where(known | (count >= window), new, 0.0)
        self.sums[slots], self.infinite[slots], self.counts[slots] = total, infinite, count
        self.lowest[slots] = lowest
        return Windowed(
            mean=mean.float(),
            lowest=lowest.where(full, mean).float(),
            below=full & (lowest < self.thresholds[slots]),
        )


def _finite(value: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    return value.double().masked_fill(value.isinf(), 0.0)
