"""The reference against plain attention, and the algebra it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.forest_attention import Forest, Plan, forest_attention, merge

TREES: list[list[Any]] = [
    [[1]],
    [[24, [0], [0]]],
    [[16, [32, [8, [5], [9]], [16, [3], [4], [1]]], [8, [2], [6]]], [40, [1], [7]], [9]],
]


def parts(seed: int, count: int, empty: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random parts of 3 rows; some have no keys, and then hold nonsense."""
    noise = torch.Generator().manual_seed(seed)
    held = torch.randn(count, 3, 4, generator=noise, dtype=torch.float64)
    sums = 10 * torch.randn(count, 3, generator=noise, dtype=torch.float64)
    none = torch.rand(count, 3, generator=noise) < empty
    return held.masked_fill(none[..., None], float("nan")), sums.masked_fill(none, -torch.inf)


@given(st.integers(0, 10**6), st.integers(2, 7), st.data())
@settings(deadline=None)
def test_merging_does_not_depend_on_order_or_grouping(seed: int, count: int, data: st.DataObject) -> None:
    held, sums = parts(seed, count)
    cut = data.draw(st.integers(1, count - 1))
    order = torch.tensor(data.draw(st.permutations(range(count))))
    once = merge(held, sums)
    shuffled, nested_sums = held[order], sums[order]
    pair = [merge(shuffled[:cut], nested_sums[:cut]), merge(shuffled[cut:], nested_sums[cut:])]
    twice = merge(torch.stack([p for p, _ in pair]), torch.stack([s for _, s in pair]))
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_parts_without_keys_merge_to_none() -> None:
    held, sums = parts(0, 3, empty=1.0)
    merged, total = merge(held, sums)
    assert (merged == 0).all() and (total == -torch.inf).all()


def test_half_precision_is_merged_in_float32() -> None:
    held, sums = parts(1, 3)
    assert [x.dtype for x in merge(held.half(), sums.half())] == [torch.float32] * 2


@pytest.mark.parametrize("trees", TREES)
@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2)]
)
def test_it_equals_plain_attention(
    planted: Callable[..., Any], trees: list[Any], soft_cap: float, dtype: torch.dtype, tolerance: float
) -> None:
    batch = planted(trees, heads=14, dtype=dtype)
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads)
    found = forest_attention(batch.query, batch.cache, plan, batch.device_lengths, scale=0.3, soft_cap=soft_cap)
    torch.testing.assert_close(found.double(), batch.expected(0.3, soft_cap), rtol=tolerance, atol=tolerance)


def test_only_unique_tokens_are_read(planted: Callable[..., Any]) -> None:
    """What no node holds may be anything; a number that is not one would show."""
    batch = planted(TREES[2])
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads)
    batch.cache[-1] = torch.nan  # a block of nobody
    for table, length in zip(batch.tables, batch.lengths, strict=True):
        if length % 4:
            batch.cache[table[-1], :, length % 4 :] = torch.nan
    assert forest_attention(batch.query, batch.cache, plan, batch.device_lengths, scale=0.3).isfinite().all()


def test_a_sequence_that_outgrew_its_blocks_is_named(planted: Callable[..., Any]) -> None:
    batch = planted([[6]])
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads)
    with pytest.raises(ValueError, match="row 0 has 9 tokens"):
        forest_attention(batch.query, batch.cache, plan, torch.tensor([9]), scale=0.3)
