"""What is compiled ahead of time, and the limits it must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A kernel with its types and tile sizes, as it ships.

    Attributes:
        name: `operation/kernel dtype what`, unique.
        kernel: the `@triton.jit` function.
        signature: type of each run-time argument, such as `*bf16`, `*fp32`, `i32`, `i64`, `fp32`.
        constants: the `tl.constexpr` arguments.
        divisible: run-time arguments that are multiples of 16 (pointers always are, and so are sizes and strides
            that the launcher sees as such); without it the loads come out narrow and the report lies.
        num_warps, num_stages: as at the launch.
        registers: most per thread on sm_90. No variant spills.
        wgmma: whether its matrix products must use Hopper's warp-group instructions.
        wide_loads: whether it must load 16 bytes at a time.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    divisible: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    registers: int = 255
    wgmma: bool = False
    wide_loads: bool = True
