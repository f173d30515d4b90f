"""A token from the list, or from the whole row."""

from __future__ import annotations

import triton
import triton.language as tl

from optillm_kernels.uncertainty.merge.triton import BEYOND
from optillm_kernels.uncertainty.stream.triton import LOG2E, NOTHING, SUMS, divisor


@triton.jit(do_not_specialize=["temperatures", "top_ps", "min_ps", "top_ks", "seeds", "positions"])
def choose(
    logits,
    stride,
    vocab,
    sums,
    top_ids,
    top_logprobs,
    temperatures,
    top_ps,
    min_ps,
    top_ks,
    seeds,
    positions,
    tokens,
    unsettled,
    k: tl.constexpr,
    most: tl.constexpr,
    threads: tl.constexpr,
    width: tl.constexpr,
    steps: tl.constexpr,
    slots: tl.constexpr,
):
    """A token of a row, from its list or from the whole row, and whether the list does not settle it."""
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperatures + row)
    greedy = temperature <= 0
    colder = LOG2E / divisor(temperature)
    size: tl.constexpr = threads * width * steps
    slices = tl.cdiv(vocab, size)

    part = tl.arange(0, slots)
    there = part < slices
    sums += (row * slices + part) * SUMS
    peak = tl.load(sums, mask=there, other=NOTHING)
    largest = tl.max(peak, 0)
    mass = tl.where(there, tl.exp2((peak - largest) * colder) * tl.load(sums + 5, mask=there, other=0.0), 0.0)
    all_mass = tl.sum(mass, 0)

    place = tl.arange(0, most)
    listed = place < k
    logprob = tl.load(top_logprobs + row * k + place, mask=listed, other=float("-inf"))
    weight = tl.exp2((logprob - tl.max(logprob, 0)) * colder)
    min_p, top_p = tl.load(min_ps + row), tl.load(top_ps + row)
    top_k = tl.load(top_ks + row).to(tl.int64)
    top_k = tl.where((top_k < 1) | (top_k > vocab), vocab, top_k)
    top_k = tl.where(greedy, 1, top_k)
    kept = listed & (weight >= min_p) & (place < top_k)
    cut = (tl.sum(kept.to(tl.int32), 0) < k) | (top_k <= k)
    whole = (min_p <= 0) & (top_k >= vocab)
    nucleus = (top_p < 1) & (temperature > 0)
    left = tl.where(cut, tl.sum(tl.where(kept, weight, 0.0), 0), all_mass)
    limit = tl.where(nucleus, top_p * left, float("inf"))
    settled = cut | (whole & nucleus & (tl.sum(weight, 0) >= limit))
    before = tl.cumsum(weight, 0) - weight
    kept = kept & ((before < limit) | (place == 0))
    plain = whole & (nucleus == 0) & (cut == 0)

    u = tl.rand(tl.load(seeds + row), tl.load(positions + row))
    weight = tl.where(kept, weight, 0.0)
    chosen = _first_beyond(place, weight, tl.cumsum(weight, 0), u * tl.sum(weight, 0))
    token = tl.load(top_ids + row * k + chosen)

    if plain:
        aim = u * all_mass
        slice_ = _first_beyond(part, mass, tl.cumsum(mass, 0), aim)
        aim -= tl.sum(tl.where(part < slice_, mass, 0.0), 0)
        source = logits + row * stride
        token = _within(source, vocab, slice_ * size, largest, colder, aim, threads * width, steps).to(tl.int64)
    tl.store(tokens + row, token)
    tl.store(unsettled + row, tl.where(settled | plain, 0, 1).to(tl.int8))


@triton.jit
def _first_beyond(at, weights, upto, aim):
    """The first that has weight and whose cumulative weight exceeds `aim`; the last that has any, by rounding.

    A scan adds in another order at every place: what weighs nothing may come out heavier than its neighbour.
    """
    first = tl.min(tl.where((weights > 0) & (upto > aim), at, BEYOND), 0)
    return tl.minimum(first, tl.max(tl.where(weights > 0, at, 0), 0))


@triton.jit
def _within(source, vocab, start, largest, colder, aim, block: tl.constexpr, steps: tl.constexpr):
    """The same of the tokens of a slice, a block at a time."""
    first = tl.full((), BEYOND, tl.int32)
    last = tl.zeros((), tl.int32)
    reached = tl.zeros((), tl.float32)
    for step in range(steps):
        at = start + step * block + tl.arange(0, block)
        x = tl.load(source + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        weights = tl.exp2((x - largest) * colder)
        upto = reached + tl.cumsum(weights, 0)
        first = tl.minimum(first, tl.min(tl.where((weights > 0) & (upto > aim), at, BEYOND), 0))
        last = tl.maximum(last, tl.max(tl.where(weights > 0, at, 0), 0))
        reached += tl.sum(weights, 0)
    return tl.minimum(first, last)
