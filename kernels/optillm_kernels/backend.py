"""Which implementation of an operation runs."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "OPTILLM_KERNELS"
"""Environment variable; `reference` turns the kernels off."""


def use_triton(tensor: Tensor) -> bool:
    """Whether the kernel runs on `tensor`: it is on a GPU, triton is there, and nobody asked for the reference."""
    return tensor.is_cuda and os.environ.get(VARIABLE) != "reference" and find_spec("triton") is not None
