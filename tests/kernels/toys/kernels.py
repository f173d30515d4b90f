"""A sum that streams, and a matrix product."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add(left, right, out, size, block: tl.constexpr):
    """Sum of two vectors."""
    lanes = tl.program_id(0) * block + tl.arange(0, block)
    inside = lanes < size
    tl.store(out + lanes, tl.load(left + lanes, mask=inside) + tl.load(right + lanes, mask=inside), mask=inside)


@triton.jit
def product(left, right, out, width, rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr):
    """Product of a matrix with the transpose of another."""
    row, column, inner = tl.arange(0, rows), tl.arange(0, columns), tl.arange(0, depth)
    total = tl.zeros((rows, columns), tl.float32)
    for start in range(0, width, depth):
        a = tl.load(left + row[:, None] * width + start + inner[None, :])
        b = tl.load(right + column[:, None] * width + start + inner[None, :])
        total = tl.dot(a, b.T, total)
    tl.store(out + row[:, None] * columns + column[None, :], total)
