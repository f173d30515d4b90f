"""How sure a model is of its next token, from one pass over the logits, and a token drawn from them.

What runs on a GPU reads the logits once; elsewhere it is plain torch. Both give the same numbers and, from the
same seeds, the same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optillm_kernels.backend import use_triton
from optillm_kernels.uncertainty import reference
from optillm_kernels.uncertainty.types import Draw, Uncertainty, Windowed
from optillm_kernels.uncertainty.window import ConfidenceWindow

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

__all__ = ["ConfidenceWindow", "Draw", "Uncertainty", "Windowed", "measure", "measure_and_draw"]

LONGEST_LIST = 128
"""Tokens that the kernels can list; for more, the reference runs."""


def measure(logits: Float[Tensor, "rows vocab"], k: int = 20) -> Uncertainty:
    """Statistics of every row, and its k likeliest tokens (all, if the vocabulary is smaller)."""
    if _covers(logits, k):
        from optillm_kernels.uncertainty import triton

        with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
            return triton.measure(logits, k)
    return reference.measure(logits, k)


def measure_and_draw(
    logits: Float[Tensor, "rows vocab"], draw: Draw, k: int = 20
) -> tuple[Uncertainty, Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """What `measure` finds, a token of every row, and whether that token is *not* to be taken.

    A row is unsettled where the k listed tokens do not prove which ones the cuts keep; an ordinary sampler has to
    draw its token.
    """
    if _covers(logits, k):
        from optillm_kernels.uncertainty import triton

        with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
            return triton.measure_and_draw(logits, draw, k)
    return reference.measure_and_draw(logits, draw, k)


def _covers(logits: Float[Tensor, "rows vocab"], k: int) -> bool:
    """Whether the kernels take these; they compute in float32."""
    return use_triton(logits) and k <= LONGEST_LIST and logits.dtype != torch.float64
