"""Statistics from the sums, and the likeliest tokens from the best groups."""

from __future__ import annotations

import triton
import triton.language as tl

from optillm_kernels.uncertainty.stream.triton import FAINT, LN2, LOG2E, NOTHING, SUMS

BEYOND = tl.constexpr(2147483647)  # no token
LEAST = tl.constexpr(-2147483648)  # below the key of any number


@triton.jit
def _key(x):
    """An integer in the order of the numbers: integers are compared across a warp in one instruction."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)  # -0 is 0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _value(key):
    """The number whose key it is."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["rows"])  # a batch of another size must compile nothing
def merge(
    logits,
    stride,
    vocab,
    maxima,
    sums,
    statistics,
    rows,
    top_ids,
    top_logprobs,
    k: tl.constexpr,
    most: tl.constexpr,
    threads: tl.constexpr,
    width: tl.constexpr,
    steps: tl.constexpr,
    slots: tl.constexpr,
    groups: tl.constexpr,
):
    """Statistics of a row from the sums of its slices, and its k likeliest tokens from its k best groups.

    `most`, `slots` and `groups` are powers of 2 that hold k, the slices and the groups.
    """
    row = tl.program_id(0).to(tl.int64)
    slices = tl.cdiv(vocab, threads * width * steps)

    part = tl.arange(0, slots)
    there = part < slices
    sums += (row * slices + part) * SUMS
    peak = tl.load(sums, mask=there, other=NOTHING)
    largest = tl.max(peak, 0)
    shift = tl.maximum((peak - largest) * LOG2E, FAINT)
    scale = tl.exp2(shift)
    s, u = tl.load(sums + 1, mask=there, other=0.0), tl.load(sums + 2, mask=there, other=0.0)
    q, total = tl.load(sums + 3, mask=there, other=0.0), tl.load(sums + 4, mask=there, other=0.0)
    mass = tl.sum(scale * s, 0)
    mean = tl.sum(scale * (u + shift * s), 0) / mass
    square = tl.sum(scale * (q + shift * (2 * u + shift * s)), 0) / mass
    average = tl.sum(total, 0) / vocab
    # What is not a number is in no other sum: comparisons leave it out.
    log_mass = tl.where(average == average, tl.log2(mass) * LN2, average)
    tl.store(statistics + row, largest + log_mass)
    tl.store(statistics + rows + row, log_mass - mean * LN2)
    tl.store(statistics + 2 * rows + row, tl.maximum(square - mean * mean, 0.0) * (LN2 * LN2) + 0 * log_mass)
    uniform = largest - average + log_mass - tl.log2(tl.full((), vocab, tl.float32)) * LN2
    tl.store(statistics + 3 * rows + row, tl.where(average == float("-inf"), float("inf"), uniform))

    group = tl.arange(0, groups)
    key = _key(
        tl.load(maxima + row * slices * threads + group, mask=group < slices * threads, other=float("-inf"))
    )
    place = tl.arange(0, most)
    best = tl.zeros((most,), tl.int32)
    for j in range(k):
        first = tl.min(tl.where(key == tl.max(key, 0), group, BEYOND), 0)
        best = tl.where(place == j, first, best)
        key = tl.where(group == first, LEAST, key)

    member = tl.arange(0, width * steps)[None, :]
    within = (member // width) * (threads * width) + (best % threads)[:, None] * width + member % width
    column = (best // threads)[:, None] * (threads * width * steps) + within
    inside = (place < k)[:, None] & (column < vocab)
    x = tl.load(logits + row * stride + column, mask=inside, other=float("-inf")).to(tl.float32)
    keys = tl.where(inside, _key(x), LEAST)
    column = tl.where(inside, column, BEYOND)
    ids = tl.zeros((most,), tl.int32)
    values = tl.zeros((most,), tl.float32)
    for j in range(k):
        highest = tl.max(tl.max(keys, 1), 0)
        first = tl.min(tl.min(tl.where(keys == highest, column, BEYOND), 1), 0)
        ids = tl.where(place == j, first, ids)
        values = tl.where(place == j, _value(highest), values)
        keys = tl.where(column == first, LEAST, keys)
    logprobs = (values - largest) - log_mass
    tl.store(top_ids + row * k + place, ids.to(tl.int64), mask=place < k)
    tl.store(top_logprobs + row * k + place, logprobs, mask=place < k)
    tl.store(statistics + 4 * rows + row, -tl.sum(tl.where(place < k, logprobs, 0.0), 0) / k)
