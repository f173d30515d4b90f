"""Which sequences share which cached blocks, read off their block tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Int
    from numpy.typing import NDArray
    from torch import Tensor

    Ints = NDArray[np.int32]
    Tables = Sequence[Sequence[int]] | Int[Tensor, "seqs blocks"] | NDArray[Any]

WORTH = 9000
"""Tokens a step is spared from which the forest pays, at 8 KV heads: its two more launches per layer cost as much.

Predicted, not measured: 6000 if siblings read their prefix from HBM, 9000 if the L2 cache serves them.
"""


@dataclass(frozen=True)
class Node:
    """A run of blocks that the same sequences hold.

    Attributes:
        sequences: rows of the batch that share the run.
        first: place of its first block in their block tables.
        blocks: ids of its blocks. Of a lone sequence's node they include the block that is being written; there
            may be none.
        parent: the node above, as an index of `Forest.nodes`; -1 for a root.
    """

    sequences: Ints
    first: int
    blocks: Ints
    parent: int

    @property
    def shared(self) -> bool:
        """Whether more than one sequence reads it."""
        return len(self.sequences) > 1


@dataclass(frozen=True)
class Forest:
    """Sequences of a batch as paths from a root to a leaf: system prompt, question, branch, own suffix.

    Every sequence has one leaf of its own, where its next tokens go. Shared nodes hold whole blocks only, so they
    never change while the sequences run.

    Attributes:
        tables: block ids of each sequence; what lies behind its last block is undefined.
        seq_lens: tokens of each sequence.
        block_size: tokens in a block.
        nodes: shared nodes, parents before their children; then the leaf of each sequence, in the batch's order.
    """

    tables: Ints
    seq_lens: Ints
    block_size: int
    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, block_tables: Tables, seq_lens: Sequence[int] | NDArray[Any], block_size: int) -> Forest:
        """The forest of these sequences.

        With prefix caching, equal physical ids in the same leading places of two tables are the same tokens. A
        tensor on a device is copied to the host, which waits for it.

        Raises:
            ValueError: a sequence without tokens, or with more than its table holds.
        """
        tables = _rectangle(block_tables)
        lengths = np.asarray(seq_lens, dtype=np.int32).reshape(-1)
        if len(tables) != len(lengths):
            raise ValueError(f"seq_lens: {len(lengths)} lengths for {len(tables)} block tables; give one for each")
        for row in np.flatnonzero((lengths < 1) | (lengths > _held(block_tables, tables) * block_size))[:1]:
            raise ValueError(
                f"seq_lens: row {row} has {lengths[row]} tokens; its table must hold that many, 1 or more"
            )
        return cls(tables, lengths, block_size, _nodes(tables, lengths, block_size))

    def grown(self, seq_lens: Sequence[int] | NDArray[Any], block_tables: Tables | None = None) -> Forest:
        """The same sequences with tokens added: nothing is compared again."""
        tables = self.tables if block_tables is None else _rectangle(block_tables)
        lengths = np.asarray(seq_lens, dtype=np.int32)
        shared = tuple(node for node in self.nodes if node.shared)
        leaves = self.nodes[len(shared) :]
        stops = -(-lengths // self.block_size)
        fresh = (replace(leaf, blocks=tables[row, leaf.first : stops[row]]) for row, leaf in enumerate(leaves))
        return Forest(tables, lengths, self.block_size, (*shared, *fresh))

    @property
    def tokens(self) -> int:
        """KV tokens that a step reads per KV head if every sequence reads its own."""
        return int(self.seq_lens.sum())

    @property
    def unique_tokens(self) -> int:
        """KV tokens that a step reads if every node is read once."""
        return self.tokens - self.shared_tokens_saved

    @cached_property
    def shared_tokens_saved(self) -> int:
        """Sum over shared nodes of (sequences - 1) x tokens."""
        return sum((len(node.sequences) - 1) * len(node.blocks) for node in self.nodes) * self.block_size


def pays(forest: Forest, kv_heads: int) -> bool:
    """Whether a decode step is predicted to gain from the forest; see `WORTH`."""
    return forest.shared_tokens_saved * kv_heads > WORTH * 8


def _rectangle(block_tables: Tables) -> Ints:
    if isinstance(block_tables, torch.Tensor):
        return block_tables.cpu().numpy().astype(np.int32, copy=False)
    if isinstance(block_tables, np.ndarray):
        return block_tables.astype(np.int32, copy=False)
    tables = np.zeros((len(block_tables), max(map(len, block_tables), default=0)), dtype=np.int32)
    for row, table in enumerate(block_tables):
        tables[row, : len(table)] = table
    return tables


def _held(block_tables: Tables, tables: Ints) -> Ints:
    """Blocks in each table."""
    if isinstance(block_tables, torch.Tensor | np.ndarray):
        return np.full(len(tables), tables.shape[1], dtype=np.int32)
    return np.fromiter(map(len, block_tables), np.int32, len(tables))


def _nodes(tables: Ints, lengths: Ints, block_size: int) -> tuple[Node, ...]:
    """Shared nodes, then leaves.

    Sorted by their blocks, sequences with a common prefix lie side by side, and the deepest prefix that a run of
    rows has in common is the least of the depths between neighbours.
    """
    order, depths = _sorted(tables, lengths // block_size)
    nodes: list[Node] = []
    parents = np.full(len(tables), -1, dtype=np.int32)  # the deepest node so far over each place of the order
    for start, stop, first, end in sorted(_runs(depths), key=lambda run: (run[2], run[0])):
        rows = order[start:stop]
        nodes.append(Node(rows, first, tables[rows[0], first:end], int(parents[start])))
        parents[start:stop] = len(nodes) - 1
    above = np.empty_like(parents)
    above[order] = parents
    stops = -(-lengths // block_size)
    for row, parent in enumerate(above.tolist()):
        first = nodes[parent].first + len(nodes[parent].blocks) if parent >= 0 else 0
        nodes.append(Node(np.array([row], np.int32), first, tables[row, first : stops[row]], parent))
    return tuple(nodes)


def _sorted(tables: Ints, whole: Ints) -> tuple[Ints, list[int]]:
    """Rows in an order that keeps prefixes together; whole blocks each shares with the next, for the last 0."""
    width = int(whole.max(initial=0))
    own = -1 - np.arange(
        len(tables), dtype=np.int32
    )  # no block, and no other row's: nothing is shared from there on
    marked = np.where(np.arange(width) < whole[:, None], tables[:, :width], own[:, None])
    keys = [row.tobytes() for row in marked]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int32)
    differ = marked[order[1:]] != marked[order[:-1]]
    depths = np.where(differ.any(axis=1), differ.argmax(axis=1), width) if width else np.zeros(len(differ), int)
    return order, [*depths.tolist(), 0]


def _runs(depths: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Every shared run: its (start, stop) in the order, its (first, end) block; from depths between neighbours."""
    runs: list[tuple[int, int, int, int]] = []
    stack: list[tuple[int, int]] = []  # (start, depth) of the runs that are still open, shallowest first
    for place, depth in enumerate(depths):
        start = place
        while stack and stack[-1][1] > depth:
            start, end = stack.pop()
            above = max(depth, stack[-1][1] if stack else 0)
            runs.append((start, place + 1, above, end))
        if depth and (not stack or stack[-1][1] < depth):
            stack.append((start, depth))
    return runs
