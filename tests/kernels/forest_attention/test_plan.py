"""Work lists: every token once, in buffers that stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.forest_attention import Capacity, Forest, Plan
from optillm_kernels.forest_attention.work import NARROW, OPEN, WIDE, Work


def read(work: Work, gqa: int, lengths: list[int]) -> list[Counter[int]]:
    """How often each row's queries meet each place of its tokens."""
    seen: list[Counter[int]] = [Counter() for _ in lengths]
    for source, first, stop, at, rows, tile, _, _ in [*work.wide.tolist(), *work.narrow.tolist()]:
        for row in range(tile, min(tile + (WIDE if rows > NARROW else NARROW), rows)):
            seen[work.members[at + row // gqa]].update(range(first, min(stop, lengths[source])))
    return seen


@given(
    tables=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=20),
    gqa=st.sampled_from([1, 4, 7, 40]),
    slice_tokens=st.sampled_from([64, 256, None]),
    trim=st.integers(0, 15),
)
@settings(deadline=None, max_examples=60)
def test_every_query_meets_every_token_of_its_sequence_once(
    tables: list[list[int]], gqa: int, slice_tokens: int | None, trim: int
) -> None:
    lengths = [16 * len(table) - trim for table in tables]
    work = Work.of(Forest.of(tables, lengths, 16), 2, gqa, slice_tokens)
    for seen, length in zip(read(work, gqa, lengths), lengths, strict=True):
        assert seen == dict.fromkeys(range(length), gqa)
    assert sorted(work.parts) == list(range(len(work.parts)))


def test_a_short_run_of_many_is_left_to_its_children() -> None:
    """16 tokens shared by 40 sequences in two groups: 40 slots would cost more than reading them twice."""
    tables = [[0, *range(10 * (row % 2) + 1, 10 * (row % 2) + 9), 100 + row] for row in range(40)]
    forest = Forest.of(tables, [150] * 40, 16)
    assert len(forest.nodes) == 43
    assert sorted(Work.of(forest, 8, 4).wide[:, 1].tolist()) == [0, 0, 0, 0]  # two groups, two tiles each


def test_the_last_slice_of_a_sequence_is_open(planted: Callable[..., Any]) -> None:
    batch = planted([[300, [170], [1]], [333]])
    work = Work.of(Forest.of(batch.tables, batch.lengths, 4), 2, 2, 64)
    stops = torch.tensor([*work.wide[:, 2].tolist(), *work.narrow[:, 2].tolist()])
    assert (stops == OPEN).sum() == len(batch.lengths)


def test_buffers_stay_where_they_are(planted: Callable[..., Any]) -> None:
    forests = [Forest.of(b.tables, b.lengths, 4) for b in (planted([[16, [3], [5]]]), planted([[9]]))]
    plan = Plan.of(forests[0], heads=4, kv_heads=2, capacity=Capacity(4, 9, 5, 9))
    names = ("counts", "wide", "narrow", "members", "starts", "parts", "tables")
    places = [getattr(plan, name).data_ptr() for name in names]
    assert all(place % 16 == places[0] % 16 for place in places)
    plan.fill(forests[1])
    assert places == [getattr(plan, name).data_ptr() for name in names]
    assert plan.forest is forests[1] and plan.counts.sum() == 1


@pytest.mark.parametrize("name", ["sequences", "blocks", "items", "slots"])
def test_a_forest_that_does_not_fit_is_refused_and_the_plan_kept(planted: Callable[..., Any], name: str) -> None:
    small, large = (Forest.of(b.tables, b.lengths, 4) for b in (planted([[5]]), planted([[8, [9], [9]], [12]])))
    room = {"sequences": 9, "blocks": 9, "items": 9, "slots": 9, name: 2}
    plan = Plan.of(small, heads=4, kv_heads=2, capacity=Capacity(**room))
    with pytest.raises(ValueError, match=f"{name}=2; this forest needs"):
        plan.fill(large)
    assert plan.forest is small and plan.counts.sum() == 1


def test_it_is_outgrown_when_a_last_slice_is_long(planted: Callable[..., Any]) -> None:
    batch = planted([[300]])
    forest = Forest.of(batch.tables, batch.lengths, 4)
    plan = Plan.of(forest, **batch.heads)
    assert not plan.outgrown([600])
    assert plan.outgrown([900])
    plan = Plan.of(forest.grown([900], [range(225)]), **batch.heads)
    assert not plan.outgrown([900])


def test_heads_must_be_a_multiple_of_kv_heads() -> None:
    with pytest.raises(ValueError, match="kv_heads=3"):
        Plan(Capacity(1, 1, 1, 1), 4, 3)
