"""Batches whose sequences share blocks, and what plain attention makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PAGE = 4


@dataclass
class Batch:
    """The input of a decode step."""

    query: Tensor
    cache: Tensor
    tables: list[list[int]]
    lengths: list[int]

    @property
    def heads(self) -> dict[str, int]:
        return {"heads": self.query.shape[1], "kv_heads": self.cache.shape[1]}

    @property
    def device_lengths(self) -> Tensor:
        return torch.tensor(self.lengths, dtype=torch.int32)

    def expected(self, scale: float, soft_cap: float = 0.0) -> Tensor:
        """Every sequence over all of its own tokens, in float64."""
        rows = []
        for query, table, length in zip(self.query.double(), self.tables, self.lengths, strict=True):
            held = self.cache[table].double().transpose(1, 2).flatten(0, 1)[:length]
            held = held.repeat_interleave(len(query) // held.shape[1], dim=1)
            keys, values = held[..., : query.shape[1]], held[..., query.shape[1] :]
            scores = torch.einsum("hd,thd->ht", query, keys) * scale
            scores = soft_cap * (scores / soft_cap).tanh() if soft_cap else scores
            rows.append(torch.einsum("ht,thd->hd", scores.softmax(-1), values))
        return torch.stack(rows)


Spec = list[Any]
"""A tree: [tokens, child, child, ...]; a child without children of its own is a sequence."""


@pytest.fixture
def planted() -> Callable[..., Batch]:
    """Makes a batch from trees: scattered blocks, shuffled rows. Inner nodes have whole blocks only."""

    def plant(
        trees: Spec,
        *,
        heads: int = 4,
        kv_heads: int = 2,
        dim: int = 16,
        page: int = PAGE,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        loud: float = 1.0,
    ) -> Batch:
        rng = np.random.default_rng(seed)
        ids = iter(rng.permutation(4000).tolist())
        leaves: list[tuple[list[int], int]] = []

        def grow(tree: Spec, above: list[int]) -> None:
            tokens, *children = tree
            table = above + [next(ids) for _ in range(-(-tokens // page))]
            if not children:
                leaves.append((table, len(above) * page + tokens))
            for child in children:
                grow(child, table)

        for tree in trees:
            grow(tree, [])
        leaves = [leaves[i] for i in rng.permutation(len(leaves))]
        used = {block: at for at, block in enumerate(sorted({b for table, _ in leaves for b in table}))}
        tables = [[used[block] for block in table] for table, _ in leaves]
        noise = torch.Generator().manual_seed(seed)
        cache = torch.randn(len(used) + 1, kv_heads, page, 2 * dim, generator=noise).to(dtype)
        query = (loud * torch.randn(len(leaves), heads, dim, generator=noise)).to(dtype)
        return Batch(query, cache, tables, [length for _, length in leaves])

    return plant
