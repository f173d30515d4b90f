"""The window of confidences in one launch."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "slots", "confidences", "lows"])  # views differ in their alignment
def push_kernel(
    slots,
    confidences,
    rows,
    rings,
    longest,
    sums,
    lowests,
    infinites,
    counts,
    windows,
    thresholds,
    means,
    lows,
    belows,
    block: tl.constexpr,
):
    """The next confidence of each slot, and what its window says now."""
    index = tl.program_id(0) * block + tl.arange(0, block)
    mask = index < rows
    slot = tl.load(slots + index, mask=mask, other=0)
    value = tl.load(confidences + index, mask=mask, other=0.0)
    window = tl.load(windows + slot, mask=mask, other=1)
    count = tl.load(counts + slot, mask=mask, other=0)
    cell = rings + slot * longest + count % window
    full = count >= window
    old = tl.load(cell, mask=mask & full, other=0.0)
    known = value == value
    infinite = tl.load(infinites + slot, mask=mask, other=0)
    infinite += tl.where(known, _infinite(value).to(tl.int64) - _infinite(old).to(tl.int64), 0)
    change = tl.where(_infinite(value), 0.0, value).to(tl.float64) - tl.where(_infinite(old), 0.0, old).to(
        tl.float64
    )
    total = tl.load(sums + slot, mask=mask, other=0.0) + tl.where(known, change, 0.0)
    count += known.to(tl.int64)
    full = count >= window
    several = tl.maximum(tl.minimum(count, window), 1).to(tl.float64)
    mean = tl.where(infinite > 0, float("inf"), tl.where(count > 0, total / several, float("nan")))
    lowest = tl.load(lowests + slot, mask=mask, other=float("inf"))
    lowest = tl.minimum(lowest, tl.where(full, mean, float("inf")))
    tl.store(cell, value, mask=mask & known)
    tl.store(sums + slot, total, mask=mask)
    tl.store(infinites + slot, infinite, mask=mask)
    tl.store(counts + slot, count, mask=mask)
    tl.store(lowests + slot, lowest, mask=mask)
    threshold = tl.load(thresholds + slot, mask=mask, other=0.0)
    tl.store(means + index, mean.to(tl.float32), mask=mask)
    tl.store(lows + index, tl.where(full, lowest, mean).to(tl.float32), mask=mask)
    tl.store(belows + index, (full & (lowest < threshold)).to(tl.int8), mask=mask)


@triton.jit
def _infinite(value):
    return tl.abs(value) == float("inf")
