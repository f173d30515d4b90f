"""A forest cut into pieces of work that a GPU's programs take one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optillm_kernels.forest_attention.forest import Forest, Ints, Node

WIDE = 64
"""Rows of a tile of many queries: what one warp group of a Hopper GPU multiplies at a time."""

NARROW = 16
"""Rows of a tile of few queries, such as a lone sequence's: the least that tensor cores take."""

STEP = 64
"""Keys per step of a program; slices are multiples of it."""

FIELDS = 8
"""Numbers per item: row of the block table, first token, token to stop before, place of the members, rows (members
x heads per KV head), first of these in this tile, first slot, and one to spare."""

OPEN = np.iinfo(np.int32).max
"""The end of a sequence's last slice: it grows with the sequence."""

_LEAST = 256  # tokens per slice: below, starting a program costs more than what it reads
_PROGRAMS = 264  # two on each of the 132 multiprocessors of an H100 or H200
_WAVES = 2  # slices per program at least, so that the last ones to end are short


@dataclass(frozen=True)
class Work:
    """What a step does, as flat arrays.

    A slot holds what one sequence gets from one slice: for every head a partial result and its log-sum-exp.

    Attributes:
        wide, narrow: items of each width of tile, longest first: [items, FIELDS].
        members: rows of the batch, node after node.
        starts, parts: the slots of sequence i are parts[starts[i] : starts[i + 1]].
        limits: tokens up to which each sequence's last slice is not too long.
    """

    wide: Ints
    narrow: Ints
    members: Ints
    starts: Ints
    parts: Ints
    limits: NDArray[np.int64]

    @classmethod
    def of(cls, forest: Forest, kv_heads: int, gqa: int, slice_tokens: int | None = None) -> Work:
        """The work of every KV head, each read by `gqa` query heads. `slice_tokens` bounds slices."""
        nodes, starts = _worth(forest, gqa)
        counts = np.array([len(node.sequences) for node in nodes])
        members = np.concatenate([node.sequences for node in nodes])
        source = np.array([node.sequences[0] for node in nodes])
        own = counts == 1
        ends = np.array([node.first + len(node.blocks) for node in nodes]) * forest.block_size
        ends[own] = forest.seq_lens[source[own]]
        slices, lengths = _slices(ends - starts, counts * gqa, slice_tokens or _bound(forest, kv_heads))

        node, nth = _repeated(slices)
        first = starts[node] + nth * lengths[node]
        last = np.minimum(first + lengths[node], ends[node])
        slots = counts[node]
        slot_at = np.cumsum(slots) - slots
        members_at = np.cumsum(counts) - counts
        piece, place = _repeated(slots)
        holders = members[members_at[node[piece]] + place]

        final = own[node] & (nth == slices[node] - 1)
        limits = np.zeros(len(forest.seq_lens), np.int64)
        limits[source[node[final]]] = first[final] + 2 * np.maximum(lengths[node[final]], _LEAST)

        stops = np.where(final, OPEN, last)
        piece, tile = _repeated(-(-slots * gqa // WIDE))
        columns = [source[node], first, stops, members_at[node], slots * gqa, tile * WIDE, slot_at]
        items = np.zeros((len(piece), FIELDS), np.int32)
        for field, column in enumerate(columns):
            items[:, field] = column if column is columns[5] else column[piece]
        items = items[np.argsort(first[piece] - last[piece], kind="stable")]
        few = items[:, 4] <= NARROW
        return cls(
            items[~few],
            items[few],
            members.astype(np.int32),
            np.concatenate([[0], np.cumsum(np.bincount(holders, minlength=len(limits)))]).astype(np.int32),
            np.argsort(holders, kind="stable").astype(np.int32),
            limits,
        )


def _worth(forest: Forest, gqa: int) -> tuple[list[Node], NDArray[np.int64]]:
    """The nodes that are read by themselves, and the first token of each.

    A node that is short for its many sequences is left out: its children read it, each on its own. A node spares
    all children but one its tokens of K and V (4 dim bytes each), and costs every sequence a slot that is written
    and read again (8 dim gqa bytes).
    """
    children = np.bincount([node.parent + 1 for node in forest.nodes], minlength=len(forest.nodes) + 1)[
        1:
    ].tolist()
    kept, starts = [], []
    first: list[int | None] = []  # where the children of a node that is left out begin
    for node, below in zip(forest.nodes, children, strict=True):
        begin = first[node.parent] if node.parent >= 0 else None
        begin = node.first if begin is None else begin
        tokens = (node.first + len(node.blocks) - begin) * forest.block_size
        dissolved = node.shared and (below - 1) * tokens <= 2 * gqa * len(node.sequences)
        first.append(begin if dissolved else None)
        if not dissolved:
            kept.append(node)
            starts.append(begin * forest.block_size)
    return kept, np.array(starts)


def _bound(forest: Forest, kv_heads: int) -> int:
    """Tokens per slice that give every program some."""
    return max(_LEAST, -(-forest.unique_tokens * kv_heads // (_PROGRAMS * _WAVES)))


def _slices(
    tokens: NDArray[np.int64], rows: NDArray[np.int64], bound: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slices of each node, and tokens in each of these.

    A slice of many rows is longer, so that its slots (2 tokens' worth of bytes per row) cost a quarter of what it
    reads at most; its tiles make enough work for all programs.
    """
    bounds = np.maximum(bound, np.where(rows > NARROW, 8 * rows, 0))
    slices = np.maximum(1, -(-tokens // bounds))
    lengths = np.maximum(1, -(-tokens // (slices * STEP))) * STEP
    return np.maximum(1, -(-tokens // lengths)), lengths


def _repeated(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each index as often as its count says, and the how manieth of these it is."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
