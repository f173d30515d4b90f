"""Heads to score with, and what a float64 reference makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from optillm_kernels.scoring import Scores, reference


@dataclass(frozen=True)
class Case:
    """Hidden states, a head and given tokens."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(
        cls,
        tokens: int,
        width: int,
        vocab: int,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        **options: float,
    ) -> Case:
        """Random, with logits of about 2."""
        random = torch.Generator().manual_seed(seed)
        hidden = torch.randn(tokens, width, generator=random).to(dtype)
        weight = (torch.randn(vocab, width, generator=random) * 2 / width**0.5).to(dtype)
        return cls(hidden, weight, torch.randint(vocab, (tokens,), generator=random), **options)

    def biased(self) -> Case:
        bias = torch.randn(len(self.weight), generator=torch.Generator().manual_seed(1))
        return replace(self, bias=bias.to(self.weight.dtype))

    @property
    def options(self) -> dict[str, Any]:
        return {"bias": self.bias, "scale": self.scale, "soft_cap": self.soft_cap}

    def exact(self) -> Scores:
        """In float64."""
        bias = None if self.bias is None else self.bias.double()
        wide = replace(self, hidden=self.hidden.double(), weight=self.weight.double(), bias=bias)
        return reference.score(wide.hidden, wide.weight, wide.targets, **wide.options)


@pytest.fixture(scope="session")
def case() -> type[Case]:
    return Case


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """Whether two scores agree: numbers to a tolerance, ranks and ids exactly."""

    def check(found: Scores, wanted: Scores, tolerance: float = 3e-6) -> None:
        for field in fields(Scores):
            ours, theirs = getattr(found, field.name), getattr(wanted, field.name)
            exact = field.name in ("rank", "top_id")
            limit = 0.0 if exact else tolerance
            torch.testing.assert_close(
                ours.double(), theirs.double(), atol=limit, rtol=limit, msg=lambda m, n=field.name: f"{n}: {m}"
            )

    return check
