"""Small tiles, so that short rows have many slices and groups, and rows of every awkward kind."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _triton() -> None:
    pytest.importorskip("triton")


def _rows(kind: str, vocab: int) -> torch.Tensor:
    random = torch.randn(3, vocab, generator=torch.Generator().manual_seed(vocab)) * 4
    match kind:
        case "random":
            return random
        case "rounded":  # many ties, as bfloat16 has
            return random.round()
        case "masked":
            return random.masked_fill(random < 0, -math.inf)
        case "one token":
            only = torch.full_like(random, -math.inf)
            only[:, vocab // 2] = 3.0
            return only
        case "flat":
            return torch.full_like(random, -2.0)
        case "large":
            return random.sign() * 1e4 + random
        case _:  # one far above all others
            return random.index_fill(1, torch.tensor([vocab - 1]), 300.0)


@pytest.fixture
def rows() -> Callable[[str, int], torch.Tensor]:
    return _rows
