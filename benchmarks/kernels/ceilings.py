"""What the machine can do at most, measured beside every operation: memory, L2 cache and matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timing import l2_bytes, measure

SECONDS = 1.0
"""Per ceiling."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes per second of a copy (read plus written) and of reads from L2; bf16 operations per second.

    `l2` is None where triton is missing. On a CPU they are what torch does there, and mean nothing here.
    """

    copy: float
    gemm: float
    l2: float | None

    @classmethod
    def of(cls, device: str, *, quick: bool) -> Ceilings:
        """Measure."""
        seconds = 0.02 if quick else SECONDS
        return cls(_copy(device, seconds, quick), _gemm(device, seconds, quick), _l2(device, seconds))

    def floor_us(self, *, read: float = 0.0, operations: float = 0.0) -> float:
        """Least microseconds for so many bytes and operations: memory and tensor cores work side by side."""
        return max(read / self.copy, operations / self.gemm) * 1e6


def _copy(device: str, seconds: float, quick: bool) -> float:
    source = torch.ones((1 << 20) if quick else (1 << 30), dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    timing = measure([lambda: target.copy_(source)], seconds)
    return 2 * source.nbytes / timing.median * 1e6


def _gemm(device: str, seconds: float, quick: bool) -> float:
    """Square, 8192; random numbers, since zeros draw less power and run faster than real work."""
    size = 128 if quick else 8192
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(left)
    timing = measure([lambda: torch.mm(left, right, out=out)], seconds)
    return 2 * size**3 / timing.median * 1e6


def _l2(device: str, seconds: float) -> float | None:
    """Reads of a buffer that fills two fifths of the cache, again and again."""
    if device != "cuda":
        return None
    try:
        from probes import read_kernel
    except ImportError:
        return None
    rounds, block = 256, 4096
    blocks = l2_bytes() * 2 // 5 // (4 * block)
    source = torch.ones(blocks * block, dtype=torch.int32, device=device)
    programs = 16 * torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    sums = torch.empty(programs, dtype=torch.int32, device=device)
    arguments: tuple[Any, ...] = (source, sums, blocks, rounds, block)
    timing = measure([lambda: read_kernel[(programs,)](*arguments)], seconds, l2_warm=True)
    return programs * rounds * block * 4 / timing.median * 1e6
