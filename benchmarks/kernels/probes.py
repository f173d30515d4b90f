"""A kernel that only reads, for the rate of the L2 cache. Imports triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def read_kernel(source, sums, blocks, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):
    """Each program reads ROUNDS blocks of 32-bit words, starting somewhere else, past the L1 cache."""
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.int32)
    for turn in range(ROUNDS):
        block = (program * 37 + turn) % blocks
        total += tl.load(source + block * BLOCK + lanes, cache_modifier=".cg")
    tl.store(sums + program, tl.sum(total, 0))
