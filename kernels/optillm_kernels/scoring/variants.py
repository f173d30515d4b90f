"""What ships of the scoring kernels."""

from __future__ import annotations

from typing import Any

from optillm_kernels.scoring import triton as kernels
from optillm_kernels.scoring.state import NOTHING, VANISHES
from optillm_kernels.variants import Variant

STATE = {"peaks": "*fp32", "totals": "*fp32", "moments": "*fp32", "deficits": "*fp32", "aboves": "*i32"}
FOLD = {
    **{"logits": "*fp32", "targets": "*i64", "target_logits": "*fp32"},
    **{**STATE, "bests": "*i32", "stride": "i32", "columns": "i32", "first": "i32", "seen": "i32"},
    **{"scale": "fp32", "cap": "fp32"},
}
FINISH = {
    **{"floats": "*fp32", "ints": "*i32", "target_logits": "*fp32", "scores": "*fp32", "ranks": "*i64"},
    **{"tokens": "i32", "vocab": "i32", "splits": "i32", "per_split": "i32", "scale": "fp32", "cap": "fp32"},
}
SIZES = ("vocab", "width")


def fold(has_cap: bool = False, ragged: bool = False) -> Variant:
    name = f"scoring/fold fp32 {kernels.BLOCK}{' soft cap' * has_cap}{' ragged' * ragged}"
    constants = {
        **{"has_scale": False, "has_cap": has_cap, "ragged": ragged, "vanishes": VANISHES},
        "block": kernels.BLOCK,
    }
    return Variant(
        name, kernels.fold_kernel, FOLD, constants, ("stride", "columns"), kernels.FOLD_WARPS, registers=80
    )


def tile(dtype: str, rows: int) -> dict[str, Any]:
    return {
        "hidden": f"tensordesc<{dtype}[{rows}, {kernels.TILE_DEPTH}]>",
        "weight": f"tensordesc<{dtype}[{kernels.TILE_COLUMNS}, {kernels.TILE_DEPTH}]>",
    }


def target(dtype: str, has_bias: bool = False) -> Variant:
    rows, types = 64, tile(dtype, 64)
    signature = {
        **{"hidden": types["hidden"], "gathered": types["weight"], "targets": "*i64", "bias": f"*{dtype}"},
        **{"out": "*fp32", "tokens": "i32", "vocab": "i32", "width": "i32"},
    }
    constants = {"has_bias": has_bias, "rows": rows, "columns": kernels.TILE_COLUMNS, "depth": kernels.TILE_DEPTH}
    return Variant(
        f"scoring/target {dtype} {rows}x{kernels.TILE_COLUMNS}x{kernels.TILE_DEPTH}{' bias' * has_bias}",
        kernels.target_kernel,
        signature,
        constants,
        SIZES,
        kernels.TILE_WARPS[rows],
        kernels.TILE_STAGES,
        registers=128,
        wgmma=True,
    )


def fused(dtype: str, rows: int, has_cap: bool = False, has_bias: bool = False) -> Variant:
    signature = {
        **{**tile(dtype, rows), "targets": "*i64", "target_logits": "*fp32", "bias": f"*{dtype}"},
        **{"floats": "*fp32", "ints": "*i32", "tokens": "i32", "vocab": "i32", "width": "i32", "tiles": "i32"},
        **{"scale": "fp32", "cap": "fp32"},
    }
    constants = {
        **{"has_bias": has_bias, "has_scale": False, "has_cap": has_cap, "nothing": NOTHING},
        **{"vanishes": VANISHES, "rows": rows, "columns": kernels.TILE_COLUMNS, "depth": kernels.TILE_DEPTH},
    }
    what = f"{rows}x{kernels.TILE_COLUMNS}x{kernels.TILE_DEPTH}{' soft cap' * has_cap}{' bias' * has_bias}"
    return Variant(
        f"scoring/fused {dtype} {what}",
        kernels.fused_kernel,
        signature,
        constants,
        SIZES,
        kernels.TILE_WARPS[rows],
        kernels.TILE_STAGES,
        registers=255,
        wgmma=True,
    )


VARIANTS = (
    fold(),
    fold(ragged=True),
    fold(has_cap=True),
    *(target(dtype) for dtype in ("bf16", "fp16")),
    target("bf16", has_bias=True),
    *(fused(dtype, rows) for dtype in ("bf16", "fp16") for rows in kernels.TILE_WARPS),
    *(fused("bf16", rows, has_cap=True) for rows in kernels.TILE_WARPS),
    *(fused("bf16", rows, has_bias=True) for rows in kernels.TILE_WARPS),
    Variant(
        "scoring/finish fp32 256",
        kernels.finish_kernel,
        FINISH,
        {"has_scale": False, "has_cap": False, "nothing": NOTHING, "block": 256},
        ("vocab",),
        num_warps=1,
        registers=128,
        wide_loads=False,
    ),
)
