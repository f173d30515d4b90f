"""The kernels against plain attention in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from optillm_kernels.forest_attention import Capacity, Forest, Plan, triton

TREES: dict[str, list[Any]] = {
    "one token": [[1]],
    "nothing is shared": [[5], [3], [11]],
    "one prefix": [[24, [7], [1], [4], [13]]],
    "everything is shared": [[24, [0], [0], [0]]],
    "one is the prefix of others": [[16, [0], [3], [0], [20]]],
    "four levels": [[16, [32, [8, [5], [9]], [16, [3], [4], [1]]], [8, [2], [6]]], [40, [1], [7]], [9]],
    "more rows than a tile": [[12, *([n % 6] for n in range(70))]],
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def run(batch: Any, *, slice_tokens: int | None = 64, soft_cap: float = 0.0, **how: Any) -> torch.Tensor:
    forest = Forest.of(batch.tables, batch.lengths, batch.cache.shape[2])
    plan = Plan.of(forest, **batch.heads, slice_tokens=slice_tokens)
    return triton.forest_attention(
        batch.query, batch.cache, plan, batch.device_lengths, scale=0.3, soft_cap=soft_cap, **how
    )


def close(found: torch.Tensor, batch: Any, soft_cap: float = 0.0) -> None:
    tolerance = TOLERANCE[batch.query.dtype]
    torch.testing.assert_close(found.double(), batch.expected(0.3, soft_cap), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
def test_every_forest_equals_plain_attention(
    planted: Callable[..., Any], trees: list[Any], dtype: torch.dtype
) -> None:
    batch = planted(trees, dtype=dtype)
    close(run(batch), batch)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 2), (7, 1), (14, 2), (20, 1), (71, 1)])
def test_any_number_of_heads_per_kv_head(planted: Callable[..., Any], heads: int, kv_heads: int) -> None:
    batch = planted(TREES["four levels"], heads=heads, kv_heads=kv_heads)
    close(run(batch), batch)


@pytest.mark.parametrize(("dim", "page"), [(8, 4), (24, 16), (64, 1), (80, 32)])
def test_any_width_and_size_of_block(planted: Callable[..., Any], dim: int, page: int) -> None:
    batch = planted([[32, [7], [64, [3], [40]]], [5]], dim=dim, page=page)
    close(run(batch), batch)


def test_long_sequences_are_cut_and_put_together(planted: Callable[..., Any]) -> None:
    batch = planted([[300, [170], [1]], [333]], heads=2, kv_heads=1)
    forest = Forest.of(batch.tables, batch.lengths, 4)
    assert len(Plan.of(forest, **batch.heads, slice_tokens=64).parts) > 2 * len(batch.lengths)
    close(run(batch), batch)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_scores_are_capped(planted: Callable[..., Any], dtype: torch.dtype) -> None:
    batch = planted(TREES["one prefix"], dtype=dtype, loud=20)
    close(run(batch, soft_cap=5.0), batch, soft_cap=5.0)


@pytest.mark.parametrize("loud", [0.0, 1e-4, 1e4])
def test_flat_and_one_hot_scores(planted: Callable[..., Any], loud: float) -> None:
    batch = planted(TREES["four levels"], loud=loud)
    close(run(batch), batch)


def test_heads_and_tokens_may_lie_in_memory_in_any_order(planted: Callable[..., Any]) -> None:
    batch = planted(TREES["four levels"])
    batch.cache = batch.cache.transpose(1, 2).contiguous().transpose(1, 2)
    batch.query = batch.query.transpose(0, 1).contiguous().transpose(0, 1)
    close(run(batch), batch)


def test_it_writes_where_it_is_told(planted: Callable[..., Any]) -> None:
    batch = planted(TREES["four levels"])
    place = torch.full((len(batch.lengths) + 2, 4, 16), 7.0)
    close(run(batch, out=place[1:-1]), batch)
    close(place[1:-1], batch)
    assert (place[[0, -1]] == 7).all()


def test_a_plan_holds_while_sequences_grow(planted: Callable[..., Any]) -> None:
    batch = planted(TREES["four levels"])
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads, slice_tokens=64)
    spare = torch.randn(200, 2, 4, 32, generator=torch.Generator().manual_seed(1))
    batch.cache, fresh = torch.cat([batch.cache, spare]), iter(range(len(batch.cache), len(batch.cache) + 200))
    for steps in (1, 4, 70):
        batch.lengths = [length + steps for length in batch.lengths]
        for table, length in zip(batch.tables, batch.lengths, strict=True):
            table.extend(next(fresh) for _ in range(-(-length // 4) - len(table)))
        tables = torch.zeros(len(batch.tables), 60, dtype=torch.int32)
        for row, table in enumerate(batch.tables):
            tables[row, : len(table)] = torch.tensor(table)
        found = triton.forest_attention(
            batch.query, batch.cache, plan, batch.device_lengths, scale=0.3, block_tables=tables
        )
        close(found, batch)


def test_one_plan_holds_one_forest_after_another(planted: Callable[..., Any]) -> None:
    plan = None
    for seed, trees in enumerate(TREES.values()):
        batch = planted(trees, seed=seed)
        forest = Forest.of(batch.tables, batch.lengths, 4)
        plan = plan or Plan.of(forest, **batch.heads, capacity=Capacity(80, 60, 90, 200))
        plan.fill(forest, slice_tokens=64)
        found = triton.forest_attention(batch.query, batch.cache, plan, batch.device_lengths, scale=0.3)
        close(found, batch)


def test_rows_beyond_the_batch_are_zero(planted: Callable[..., Any]) -> None:
    batch = planted(TREES["one prefix"])
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads, capacity=Capacity(8, 20, 20, 40))
    query = torch.cat([batch.query, torch.ones(3, 4, 16)])
    lengths = torch.cat([batch.device_lengths, torch.zeros(3, dtype=torch.int32)])
    found = triton.forest_attention(query, batch.cache, plan, lengths, scale=0.3)
    close(found[:-3], batch)
    assert (found[-3:] == 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda b: setattr(b, "cache", b.cache.half()), "float16"),
        (lambda b: setattr(b, "cache", b.cache[..., :-2]), "last axis"),
        (lambda b: setattr(b, "query", b.query[:, :2]), "made for 4 heads"),
        (lambda b: setattr(b, "query", b.query.repeat(2, 1, 1)), "room for 4"),
    ],
)
def test_what_the_kernels_do_not_take_is_named(
    planted: Callable[..., Any], change: Callable[[Any], None], named: str
) -> None:
    batch = planted(TREES["one prefix"])
    plan = Plan.of(Forest.of(batch.tables, batch.lengths, 4), **batch.heads)
    change(batch)
    with pytest.raises(ValueError, match=named):
        triton.forest_attention(batch.query, batch.cache, plan, batch.device_lengths, scale=0.3)
