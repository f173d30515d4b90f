"""One pass over the logits: sums, and the largest of each group."""

from __future__ import annotations

import triton
import triton.language as tl

SUMS = tl.constexpr(6)  # of a slice: largest, sum e, sum e d, sum e d^2, sum x, sum at the temperature
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(-1e30)  # finite, so that differences of it are numbers
FAINT = tl.constexpr(-200.0)  # 2 to this is 0 in float32, and 0 times this is 0, which it is not for -inf


@triton.jit(do_not_specialize=["temperatures"])
def stream(
    logits,
    stride,
    vocab,
    temperatures,
    maxima,
    sums,
    threads: tl.constexpr,
    width: tl.constexpr,
    steps: tl.constexpr,
    draws: tl.constexpr,
):
    """Sums of a slice of a row, and the largest logit of each thread's group."""
    slices = tl.cdiv(vocab, threads * width * steps)
    row = (tl.program_id(0) // slices).to(tl.int64)
    part = tl.program_id(0) % slices
    thread = tl.arange(0, threads)
    column = part * (threads * width * steps) + thread[:, None] * width + tl.arange(0, width)[None, :]
    source = logits + row * stride
    if draws:
        colder = LOG2E / divisor(tl.load(temperatures + row))
    peak = tl.full((threads,), NOTHING, tl.float32)
    s = tl.zeros((threads,), tl.float32)
    u = tl.zeros((threads,), tl.float32)
    q = tl.zeros((threads,), tl.float32)
    t = tl.zeros((threads,), tl.float32)
    total = tl.zeros((threads,), tl.float32)
    for step in tl.range(steps, loop_unroll_factor=2):  # fewer instructions
        at = column + step * (threads * width)
        x = tl.load(source + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(x, 1))
        away = x - higher[:, None]
        d = tl.maximum(away * LOG2E, FAINT)
        e = tl.exp2(d)
        shift = tl.maximum((peak - higher) * LOG2E, FAINT)
        scale = tl.exp2(shift)
        q = scale * (q + shift * (2 * u + shift * s)) + tl.sum(e * d * d, 1)
        u = scale * (u + shift * s) + tl.sum(e * d, 1)
        s = scale * s + tl.sum(e, 1)
        total += tl.sum(tl.where(at < vocab, x, 0.0), 1)
        if draws:
            t = tl.exp2((peak - higher) * colder) * t + tl.sum(tl.exp2(away * colder), 1)
        peak = higher
    tl.store(maxima + row * slices * threads + part * threads + thread, peak)
    largest = tl.max(peak, 0)
    shift = tl.maximum((peak - largest) * LOG2E, FAINT)
    scale = tl.exp2(shift)
    sums += (row * slices + part) * SUMS
    tl.store(sums, largest)
    tl.store(sums + 1, tl.sum(scale * s, 0))
    tl.store(sums + 2, tl.sum(scale * (u + shift * s), 0))
    tl.store(sums + 3, tl.sum(scale * (q + shift * (2 * u + shift * s)), 0))
    tl.store(sums + 4, tl.sum(total, 0))
    if draws:
        tl.store(sums + 5, tl.sum(tl.exp2((peak - largest) * colder) * t, 0))


@triton.jit
def divisor(temperature):
    """That of a greedy row does not matter, but must be a number."""
    return tl.where(temperature > 0, temperature, 1.0)
