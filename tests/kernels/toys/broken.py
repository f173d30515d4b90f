"""Each breaks the limit that its name says."""

from __future__ import annotations

from dataclasses import replace

from .good import VARIANTS as GOOD

ADD, PRODUCT = GOOD

VARIANTS = (
    replace(ADD, name="toys/add registers", registers=8),
    replace(ADD, name="toys/add narrow", divisible=()),
    replace(ADD, name="toys/add hgmma", wgmma=True),
    replace(PRODUCT, name="toys/product spills", num_warps=1),
    replace(PRODUCT, name="toys/product types", signature={**PRODUCT.signature, "left": "*fp32"}),
    replace(PRODUCT, name="toys/product names", constants={**PRODUCT.constants, "deep": 1}),
)
