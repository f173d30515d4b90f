"""The operation on a GPU: one read of the logits, and a second look at one in a hundred of them.

`stream` gives every thread a group of logits and keeps running sums and the largest of each group. The k groups
with the largest maxima have the k likeliest tokens among them, for whatever exceeds the k-th largest maximum is in
one of those groups: `merge` reads these again and takes out one token after the other. `choose` draws from that
list, or, if nothing is cut, goes through the sums of slices and then through one slice.

Each row is summed in an order that depends on nothing but the size of the vocabulary and how the rows are aligned
in memory: to 16 bytes, or not. Logits below -1e30 have no probability.

Triton launches on the current device, which has to be that of the logits. Nothing that changes from step to step
may be compiled for: kernels do not specialize on the number of rows, nor on the alignment of vectors of callers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton

from optillm_kernels.uncertainty.choose.triton import choose
from optillm_kernels.uncertainty.merge.triton import merge
from optillm_kernels.uncertainty.push.triton import push_kernel
from optillm_kernels.uncertainty.stream.triton import SUMS, stream
from optillm_kernels.uncertainty.types import Draw, Uncertainty, Windowed

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from optillm_kernels.uncertainty.window import ConfidenceWindow


@dataclass(frozen=True)
class Tile:
    """How `stream` walks through a row: a slice is `threads * width * steps` successive logits.

    Attributes:
        threads: of a program; each has a group.
        width: successive logits of a thread, 16 bytes.
        steps: of a thread, `threads * width` logits apart; a group has `width * steps` logits.
    """

    threads: int
    width: int
    steps: int

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tile:
        """As it ships: groups of 128."""
        width = 16 // dtype.itemsize
        return cls(128, width, 128 // width)

    def slices(self, vocab: int) -> int:
        """Programs of a row."""
        return -(-vocab // (self.threads * self.width * self.steps))


def measure(logits: Float[Tensor, "rows vocab"], k: int = 20, tile: Tile | None = None) -> Uncertainty:
    """As the reference; k is at most the threads of the tile."""
    tile = tile or Tile.of(logits.dtype)
    found, _ = _measure(_contiguous(logits), k, tile, None)
    return found


def measure_and_draw(
    logits: Float[Tensor, "rows vocab"], draw: Draw, k: int = 20, tile: Tile | None = None
) -> tuple[Uncertainty, Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """As the reference; k is at most the threads of the tile."""
    tile, logits = tile or Tile.of(logits.dtype), _contiguous(logits)
    rows, vocab = logits.shape
    temperature = draw.temperature.float().contiguous()
    found, sums = _measure(logits, k, tile, temperature)
    k = found.top_ids.shape[1]
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    unsettled = torch.empty(rows, dtype=torch.bool, device=logits.device)
    if rows:
        choose[(rows,)](
            logits,
            logits.stride(0),
            vocab,
            sums,
            found.top_ids,
            found.top_logprobs,
            temperature,
            draw.top_p.float().contiguous(),
            draw.min_p.float().contiguous(),
            draw.top_k.contiguous(),
            draw.seed.long().contiguous(),
            draw.position.long().contiguous(),
            tokens,
            unsettled.view(torch.int8),
            k=k,
            most=triton.next_power_of_2(k),
            threads=tile.threads,
            width=tile.width,
            steps=tile.steps,
            slots=triton.next_power_of_2(tile.slices(vocab)),
        )
    return found, tokens, unsettled


def _measure(
    logits: Float[Tensor, "rows vocab"], k: int, tile: Tile, temperature: Float[Tensor, " rows"] | None
) -> tuple[Uncertainty, Float[Tensor, "rows slices sums"]]:
    """What is measured, and the sums of slices; with a temperature, also of the masses at it."""
    (rows, vocab), device = logits.shape, logits.device
    k, slices = min(k, vocab), tile.slices(vocab)
    maxima = torch.empty(rows, slices * tile.threads, device=device)
    sums = torch.empty(rows, slices, SUMS.value, device=device)
    statistics = torch.empty(5, rows, device=device)
    top_ids = torch.empty(rows, k, dtype=torch.int64, device=device)
    top_logprobs = torch.empty(rows, k, device=device)
    shape = {"threads": tile.threads, "width": tile.width, "steps": tile.steps}
    if rows:
        draws = temperature is not None
        source = (logits, logits.stride(0), vocab)
        stream[(rows * slices,)](*source, temperature if draws else sums, maxima, sums, **shape, draws=draws)
        most = triton.next_power_of_2(k)
        merge[(rows,)](
            *source,
            maxima,
            sums,
            statistics,
            rows,
            top_ids,
            top_logprobs,
            k=k,
            most=most,
            **shape,
            slots=triton.next_power_of_2(slices),
            groups=triton.next_power_of_2(slices * tile.threads),
            num_warps=merge_warps(most),
        )
    logsumexp, entropy, varentropy, self_certainty, confidence = statistics.unbind()
    found = Uncertainty(logsumexp, entropy, varentropy, self_certainty, top_ids, top_logprobs, confidence)
    return found, sums


def merge_warps(most: int) -> int:
    """So that a thread has 32 logits of the best groups, or 64 where the list is long."""
    return 4 if most <= 32 else 8


def _contiguous(logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    """With successive logits side by side; rows may be apart."""
    return logits if logits.stride(1) == 1 else logits.contiguous()


def push(window: ConfidenceWindow, slots: Int[Tensor, " rows"], confidence: Float[Tensor, " rows"]) -> Windowed:
    """`ConfidenceWindow.push` in one launch."""
    rows, block = confidence.shape[0], 128
    mean, lowest = torch.empty(2, rows, device=confidence.device).unbind()
    below = torch.empty(rows, dtype=torch.bool, device=confidence.device)
    if rows:
        push_kernel[(triton.cdiv(rows, block),)](
            slots.contiguous(),
            confidence.float().contiguous(),
            rows,
            window.rings,
            window.rings.shape[1],
            window.sums,
            window.lowest,
            window.infinite,
            window.counts,
            window.windows,
            window.thresholds,
            mean,
            lowest,
            below.view(torch.int8),
            block=block,
            num_warps=4,
        )
    return Windowed(mean, lowest, below)
