"""Forests read off block tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.forest_attention import Forest, pays


def shared(forest: Forest) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    return {
        (tuple(sorted(node.sequences.tolist())), tuple(node.blocks.tolist()))
        for node in forest.nodes
        if node.shared
    }


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Random tables over few ids, so that prefixes are often shared; blocks of 2."""
    tables = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12))
    return tables, [draw(st.integers(1, 2 * len(table))) for table in tables]


def test_runs_of_blocks_and_who_shares_them() -> None:
    tables = [[3, 4, 5], [9, 10], [3, 4, 6, 7], [1, 2], [9, 11, 12], [3, 4, 6, 8]]
    forest = Forest.of(tables, [40, 17, 64, 20, 33, 50], 16)
    assert shared(forest) == {((0, 2, 5), (3, 4)), ((2, 5), (6,)), ((1, 4), (9,))}
    assert (forest.tokens, forest.shared_tokens_saved, forest.unique_tokens) == (224, 96, 128)


@given(batches())
@settings(deadline=None)
def test_every_sequence_is_the_path_to_its_leaf(batch: tuple[list[list[int]], list[int]]) -> None:
    tables, lengths = batch
    forest = Forest.of(tables, lengths, 2)
    for row, (table, length) in enumerate(zip(tables, lengths, strict=True)):
        node, path = forest.nodes[row - len(tables)], []
        while True:
            assert row in node.sequences
            path[:0] = node.blocks.tolist()
            if node.parent < 0:
                break
            node = forest.nodes[node.parent]
        assert path == table[: -(-length // 2)]


@given(batches())
@settings(deadline=None)
def test_a_step_reads_every_common_prefix_of_whole_blocks_once(batch: tuple[list[list[int]], list[int]]) -> None:
    tables, lengths = batch
    prefixes = [tuple(t[:d]) for t, n in zip(tables, lengths, strict=True) for d in range(1, n // 2 + 1)]
    forest = Forest.of(tables, lengths, 2)
    assert forest.shared_tokens_saved == 2 * (len(prefixes) - len(set(prefixes)))
    assert all(node.blocks.size for node in forest.nodes if node.shared)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_tables_may_be_tensors_with_anything_behind_the_last_block(kind: type) -> None:
    forest = Forest.of(kind([[5, 6, 7, 7], [5, 6, 7, 7], [5, 6, 0, 7]]), [5, 5, 4], 2)
    assert shared(forest) == {((0, 1, 2), (5, 6))}


def test_a_block_that_is_being_written_is_never_shared() -> None:
    forest = Forest.of([[1, 2], [1, 2]], [7, 7], 4)
    assert shared(forest) == {((0, 1), (1,))}


def test_sequences_that_grow_keep_their_shared_runs() -> None:
    forest = Forest.of([[1, 2, 0], [1, 3, 0]], [6, 8], 4)
    grown = forest.grown([8, 9], [[1, 2, 0], [1, 3, 4]])
    assert shared(grown) == shared(forest)
    assert [node.blocks.tolist() for node in grown.nodes[1:]] == [[2], [3, 4]]


@pytest.mark.parametrize(
    ("tables", "lengths", "named"),
    [([[1]], [0], "row 0 has 0"), ([[1], [2]], [4, 5], "row 1 has 5"), ([[1]], [1, 1], "2 lengths for 1")],
)
def test_lengths_that_cannot_be_are_named(tables: list[list[int]], lengths: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Forest.of(tables, lengths, 4)


@pytest.mark.parametrize(("kv_heads", "expected"), [(8, True), (4, False), (16, True)])
def test_it_pays_when_many_tokens_are_spared(kv_heads: int, expected: bool) -> None:
    """16 samples of a prompt of 768 tokens: 11520 tokens are not read again."""
    prompt = list(range(48))
    tables = [[*prompt, 100 + row] for row in range(16)]
    assert pays(Forest.of(tables, [770] * 16, 16), kv_heads) is expected


def test_what_shares_nothing_does_not_pay() -> None:
    assert not pays(Forest.of([[1], [2]], [3, 4], 16), 8)
