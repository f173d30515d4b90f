"""Triton's interpreter, made right for bfloat16 where a kernel cannot avoid it.

The interpreter keeps bfloat16 as its bits, in `uint16`, and computes on those as on integers. Kernels therefore
upcast right after `tl.load`, which is also what a GPU wants. Two cases remain: operands of `tl.dot`, which must be
bfloat16 for tensor cores, and casts, where the interpreter truncates what hardware rounds to nearest even. Both
are corrected here, and nothing else: bfloat16 arithmetic stays as wrong as it is, so that tests find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 to each value, ties to even."""
    return torch.from_numpy(np.array(values)).to(torch.bfloat16).view(torch.uint16).numpy()


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 that has these upper bits: exact, of subnormals too."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(scope="session", autouse=True)
def bfloat16_in_the_interpreter() -> Iterator[None]:
    """For every test below this folder; no part of what ships."""
    try:
        import triton.language as tl
        from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
    except ImportError:  # no triton on this machine: the tests of the references run all the same
        yield
        return
    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        match src.dtype.scalar, dst_type.scalar:
            case tl.float32, tl.bfloat16:
                return TensorHandle(rounded(src.data), tl.bfloat16)
            case tl.bfloat16, tl.float32:
                return TensorHandle(widened(src.data), tl.float32)
        return cast(self, src, dst_type)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        wide = [TensorHandle(widened(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b)]
        return dot(self, *wide, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "cast_impl", cast_impl)
        patch.setattr(InterpreterBuilder, "create_dot", create_dot)
        yield
