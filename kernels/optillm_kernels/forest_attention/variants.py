"""What of forest attention is compiled ahead of time, and the limits it must keep."""

from __future__ import annotations

import torch

from optillm_kernels.forest_attention.tiles import Tile, combine_constants, segment_constants, tiles
from optillm_kernels.forest_attention.triton import combine_kernel, segment_kernel
from optillm_kernels.variants import Variant

_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_STRIDES = ("query_row", "query_head", "cache_block", "cache_head", "cache_token", "table_row")


def _segment(
    dtype: torch.dtype, tile: Tile, registers: int, *, gqa: int = 4, dim: int = 128, soft_cap: bool = False
) -> Variant:
    held = _NAMES[dtype]
    what = f"M {tile.m} N {tile.n}, {gqa} heads of {dim}{', soft cap' if soft_cap else ''}"
    pointers = {"query": f"*{held}", "cache": f"*{held}", "partials": "*fp32", "logsumexps": "*fp32"}
    lists = dict.fromkeys(("tables", "lengths", "items", "count", "members"), "*i32")
    sizes = dict.fromkeys(("kv_heads", "partial_rows", *_STRIDES), "i32")
    return Variant(
        name=f"forest_attention/segment {held} {what}",
        kernel=segment_kernel,
        signature={**pointers, **lists, **sizes, "scale": "fp32", "soft_cap": "fp32"},
        constants=segment_constants(tile, gqa, dim, 16, soft_cap),
        divisible=_STRIDES,
        num_warps=tile.warps,
        num_stages=tile.stages,
        registers=registers,
        wgmma=tile.m >= 64 and dtype != torch.float32,
    )


def _combine(dtype: torch.dtype, gqa: int = 4, dim: int = 128) -> Variant:
    held = _NAMES[dtype]
    return Variant(
        name=f"forest_attention/combine {held} {gqa} heads of {dim}",
        kernel=combine_kernel,
        signature={
            **{
                "partials": "*fp32",
                "logsumexps": "*fp32",
                "starts": "*i32",
                "parts": "*i32",
                "output": f"*{held}",
            },
            **{"partial_rows": "i32", "output_row": "i32", "output_head": "i32"},
        },
        constants=combine_constants(gqa, dim),
        divisible=("output_row", "output_head"),
        num_warps=1,
        registers=64,
    )


_WIDE, _NARROW = tiles(torch.bfloat16)

VARIANTS: tuple[Variant, ...] = (
    _segment(torch.bfloat16, _WIDE, 224),
    _segment(torch.bfloat16, _NARROW, 128),
    _segment(torch.bfloat16, _WIDE, 224, gqa=7),
    _segment(torch.bfloat16, _NARROW, 128, gqa=7),
    _segment(torch.bfloat16, _WIDE, 224, dim=64),
    _segment(torch.bfloat16, _WIDE, 224, soft_cap=True),
    _segment(torch.float16, _WIDE, 224),
    _segment(torch.float16, _NARROW, 128),
    *(_segment(torch.float32, tile, 255) for tile in tiles(torch.float32)),
    *(_combine(dtype) for dtype in _NAMES),
)
"""Block size 16; others change shifts only."""
