"""Sizes of the kernels' tiles, by type; for the launches and for what is compiled ahead of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from optillm_kernels.forest_attention.work import FIELDS, NARROW, WIDE

LOG2_E = math.log2(math.e)

TOGETHER = 4
"""Slots that the combine kernel takes at a time: a sequence has two to four, mostly."""


@dataclass(frozen=True)
class Tile:
    """How a program of the segment kernel is laid out.

    Attributes:
        m: rows, that is members x heads.
        n: keys per step.
        warps, stages: of a program, and of its pipeline of loads.
        resident: programs of it that a multiprocessor runs at once, by its registers and shared memory.
    """

    m: int
    n: int
    warps: int
    stages: int
    resident: int


def tiles(dtype: torch.dtype) -> tuple[Tile, Tile]:
    """The wide and the narrow tile. Float32 has no tensor cores that keep its precision."""
    if dtype == torch.float32:
        return Tile(WIDE, 32, 8, 2, 1), Tile(NARROW, 32, 4, 2, 2)
    return Tile(WIDE, 64, 4, 3, 2), Tile(NARROW, 64, 4, 3, 4)


def segment_constants(tile: Tile, gqa: int, dim: int, page: int, soft_cap: bool) -> dict[str, Any]:
    """The `tl.constexpr` arguments of the segment kernel."""
    return {
        "GQA": gqa,
        "DIM": dim,
        "PAGE": page,
        "M": tile.m,
        "N": tile.n,
        "D": padded(dim),
        "FIELDS": FIELDS,
        "SOFT_CAP": soft_cap,
    }


def combine_constants(gqa: int, dim: int) -> dict[str, Any]:
    """The `tl.constexpr` arguments of the combine kernel."""
    return {"GQA": gqa, "DIM": dim, "D": padded(dim), "C": TOGETHER}


def padded(dim: int) -> int:
    """A power of 2, and what a matrix product takes at least."""
    return int(max(16, 1 << (dim - 1).bit_length()))
