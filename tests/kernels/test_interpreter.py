"""What the shim in conftest.py promises: bfloat16 in the interpreter is what torch computes, bit for bit."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def copy_kernel(source, target, size: tl.constexpr):
    lanes = tl.arange(0, size)
    tl.store(target + lanes, tl.load(source + lanes).to(target.dtype.element_ty))


@triton.jit
def dot_kernel(left, right, out, size: tl.constexpr, upcast: tl.constexpr):
    lanes = tl.arange(0, size)
    tile = lanes[:, None] * size + lanes[None, :]
    a, b = tl.load(left + tile), tl.load(right + tile)
    if upcast:
        a, b = a.to(tl.float32), b.to(tl.float32)
    tl.store(out + tile, tl.dot(a, b, input_precision="ieee"))


def copied(source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    target = torch.empty(source.shape, dtype=dtype)
    copy_kernel[(1,)](source, target, size=source.numel())
    return target


def every_bfloat16() -> torch.Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def between_bfloat16() -> torch.Tensor:
    """Every finite bfloat16 with lower bits just below, at and just above the tie."""
    upper = every_bfloat16()
    upper = upper[upper.isfinite()].view(torch.int16).to(torch.int32) << 16
    lower = torch.tensor([0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    values = (upper[:, None] | lower).flatten()
    return values[torch.arange(2**19) % values.numel()].view(torch.float32)


def test_every_bfloat16_is_read_exactly() -> None:
    source = every_bfloat16()
    assert torch.equal(copied(source, torch.float32).view(torch.int32), source.float().view(torch.int32))


def test_float32_is_rounded_to_the_nearest_bfloat16_and_ties_to_even() -> None:
    source = between_bfloat16()
    assert torch.equal(copied(source, torch.bfloat16).view(torch.int16), source.bfloat16().view(torch.int16))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 0.0, -0.0, 3.4e38, -3.4e38, 1e-45])
def test_the_ends_of_the_range_are_kept(value: float) -> None:
    source = torch.full((16,), value)
    assert torch.equal(copied(source, torch.bfloat16).view(torch.int16), source.bfloat16().view(torch.int16))


def test_nan_stays_nan() -> None:
    assert copied(torch.full((16,), float("nan")), torch.bfloat16).isnan().all()


@pytest.mark.parametrize("size", [16, 64])
def test_a_product_of_bfloat16_is_that_of_the_same_numbers_in_float32(size: int) -> None:
    left, right = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0)).bfloat16()
    results = []
    for upcast in (False, True):
        results.append(torch.empty(size, size))
        dot_kernel[(1,)](left, right, results[-1], size=size, upcast=upcast)
    assert torch.equal(*results)
    torch.testing.assert_close(results[0], left.float() @ right.float(), rtol=1e-5, atol=1e-5)


def test_a_product_of_small_integers_in_bfloat16_is_exact() -> None:
    left, right = torch.randint(-8, 9, (2, 32, 32), generator=torch.Generator().manual_seed(1)).bfloat16()
    out = torch.empty(32, 32)
    dot_kernel[(1,)](left, right, out, size=32, upcast=False)
    assert torch.equal(out, left.float() @ right.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_types_are_left_as_they_are(dtype: torch.dtype) -> None:
    left, right = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    out = torch.empty(16, 16)
    dot_kernel[(1,)](left, right, out, size=16, upcast=False)
    torch.testing.assert_close(out, left.float() @ right.float(), rtol=2e-3, atol=2e-3)
    assert torch.equal(copied(out.flatten(), torch.float16), out.flatten().half())
