"""What ships: the kernels at the shape of the largest vocabularies, 151936 tokens and lists of 20."""

from __future__ import annotations

from typing import Any

import torch

from optillm_kernels.uncertainty.choose.triton import choose
from optillm_kernels.uncertainty.merge.triton import merge
from optillm_kernels.uncertainty.push.triton import push_kernel
from optillm_kernels.uncertainty.stream.triton import stream
from optillm_kernels.uncertainty.triton import Tile, merge_warps
from optillm_kernels.variants import Variant

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SOURCE = {"stride": "i32", "vocab": "i32"}
_LIST = {"top_ids": "*i64", "top_logprobs": "*fp32"}
_DRAW = {"temperatures": "*fp32", "top_ps": "*fp32", "min_ps": "*fp32", "top_ks": "*i64", "seeds": "*i64"}
_SLOTS, _GROUPS = 16, 2048


def _tile(dtype: str) -> dict[str, Any]:
    tile = Tile.of(_TYPES[dtype])
    return {"threads": tile.threads, "width": tile.width, "steps": tile.steps}


def _stream(dtype: str, draws: bool, registers: int) -> Variant:
    return Variant(
        f"uncertainty/stream {dtype}{' with temperature' if draws else ''}",
        stream,
        {"logits": f"*{dtype}", **_SOURCE, "temperatures": "*fp32", "maxima": "*fp32", "sums": "*fp32"},
        {**_tile(dtype), "draws": draws},
        divisible=("stride", "vocab"),
        registers=registers,
    )


def _merge(dtype: str, k: int, most: int, registers: int) -> Variant:
    return Variant(
        f"uncertainty/merge {dtype} k {k}",
        merge,
        {
            "logits": f"*{dtype}",
            **_SOURCE,
            "maxima": "*fp32",
            "sums": "*fp32",
            "statistics": "*fp32",
            "rows": "i32",
            **_LIST,
        },
        {**_tile(dtype), "k": k, "most": most, "slots": _SLOTS, "groups": _GROUPS},
        divisible=("stride", "vocab"),
        num_warps=merge_warps(most),
        registers=registers,
    )


def _choose(dtype: str, registers: int) -> Variant:
    return Variant(
        f"uncertainty/choose {dtype} k 20",
        choose,
        {
            "logits": f"*{dtype}",
            **_SOURCE,
            "sums": "*fp32",
            **_LIST,
            **_DRAW,
            "positions": "*i64",
            "tokens": "*i64",
            "unsettled": "*i8",
        },
        {**_tile(dtype), "k": 20, "most": 32, "slots": _SLOTS},
        divisible=("stride", "vocab"),
        registers=registers,
    )


_PUSH = Variant(
    "uncertainty/push",
    push_kernel,
    {
        "slots": "*i64",
        "confidences": "*fp32",
        "rows": "i32",
        "rings": "*fp32",
        "longest": "i32",
        "sums": "*fp64",
        "lowests": "*fp64",
        "infinites": "*i64",
        "counts": "*i64",
        "windows": "*i64",
        "thresholds": "*fp32",
        "means": "*fp32",
        "lows": "*fp32",
        "belows": "*i8",
    },
    {"block": 128},
    divisible=("longest",),
    registers=64,
    wide_loads=False,  # one number per slot
)

VARIANTS: tuple[Variant, ...] = (
    *(_stream(dtype, draws, 48) for dtype in _TYPES for draws in (False, True)),
    *(_merge(dtype, 20, 32, 96) for dtype in _TYPES),
    _merge("bf16", 128, 128, 192),
    *(_choose(dtype, 64) for dtype in _TYPES),
    _PUSH,
)
