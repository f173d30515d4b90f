"""Philox-4x32-10 in torch: the numbers that Triton's `tl.rand` gives.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_MASK = 0xFFFFFFFF
_KEYS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = (0xD2511F53, 0xCD9E8D57)
_SCALE = 4.6566127342e-10  # of 31 bits; the largest product is below 1


def uniform(seed: Int[Tensor, " rows"], position: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """A float32 in [0, 1) for each seed and position, both of which count with all 64 bits."""
    seed, position = seed.long(), position.long()
    k0, k1 = seed & _MASK, seed >> 32 & _MASK
    c0, c1 = position & _MASK, position >> 32 & _MASK
    c2 = c3 = torch.zeros_like(seed)
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, _ROUNDS[0]), _product(c2, _ROUNDS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _KEYS[0] & _MASK, k1 + _KEYS[1] & _MASK
    signed = torch.where(c0 >= 1 << 31, _MASK - c0, c0)  # as int32, negatives mapped to what is left of 0
    return signed.float() * _SCALE


def _product(a: Int[Tensor, " rows"], b: int) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """High and low 32 bits of a * b, both below 2^32: int64 has no room for 64 bits without a sign."""
    low = (a & 0xFFFF) * b
    high = (a >> 16) * b + (low >> 16)
    return high >> 16, (high & 0xFFFF) << 16 | low & 0xFFFF
