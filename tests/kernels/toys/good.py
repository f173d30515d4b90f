"""They keep their limits."""

from __future__ import annotations

from optillm_kernels.variants import Variant

from .kernels import add, product

VECTORS = {"left": "*fp32", "right": "*fp32", "out": "*fp32", "size": "i32"}
MATRICES = {"left": "*bf16", "right": "*bf16", "out": "*fp32", "width": "i32"}
TILE = {"rows": 128, "columns": 128, "depth": 64}

VARIANTS = (
    Variant("toys/add fp32 1024", add, VECTORS, {"block": 1024}, divisible=("size",), registers=32),
    Variant("toys/product bf16 128x128x64", product, MATRICES, TILE, ("width",), 8, 3, registers=128, wgmma=True),
)
