"""Decode attention over a forest of shared prefixes, at the shapes of tree search and of many samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from contest import OURS, Case, Check, Contender
from float64 import check_attention
from forest_others import others
from optillm_kernels.forest_attention import Forest, Node, Plan, forest_attention
from timing import Call, l2_bytes, rotations
from torch import Tensor

BLOCK = 16
"""Tokens per cached block, as vLLM has it."""


@dataclass(frozen=True, slots=True)
class Model:
    """Heads of one layer."""

    name: str
    heads: int
    kv_heads: int
    dim: int = 128


LLAMA = Model("Llama-3.1-8B", 32, 8)
QWEN = Model("Qwen2.5-7B", 28, 4)
TINY = Model("tiny", 4, 2, 16)


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences from the root down: at each level every node has `fan` children of `tokens` tokens each.

    `shuffled`: siblings are anywhere in the batch, not side by side.
    """

    levels: tuple[tuple[int, int], ...]
    shuffled: bool = False
    model: Model = LLAMA

    @property
    def label(self) -> str:
        """Fans by crosses, tokens by pluses."""
        fans = "x".join(str(fan) for fan, _ in self.levels)
        tokens = "+".join(str(tokens) for _, tokens in self.levels)
        return f"{fans}, {tokens} {'shuffled' if self.shuffled else 'adjacent'} {self.model.name}"


HEADLINE = Tree(((32, 2048), (16, 512)))
SHAPES = (
    HEADLINE,
    Tree(HEADLINE.levels, shuffled=True),
    Tree(((32, 1024), (16, 512))),
    Tree(((8, 2048), (16, 512))),
    Tree(((64, 4096), (3, 512))),
    Tree(((32, 300), (16, 4096))),
    Tree(((1, 2048), (16, 512))),
    Tree(((16, 3072), (4, 128))),
    Tree(((1, 512), (8, 1536), (4, 512), (4, 256)), shuffled=True),
    Tree(((32, 2048), (16, 512)), model=QWEN),
    Tree(((32, 4096), (16, 512))),
    Tree(((32, 2048), (16, 2048))),
)
QUICK = (
    Tree(((2, 32), (3, 20)), model=TINY),
    Tree(((1, 16), (2, 32), (2, 24)), shuffled=True, model=TINY),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one decode step.

    Attributes:
        query: [seqs, heads, dim].
        caches: each [blocks, kv_heads, block, 2 dim]: the same shape, to be used in turn.
        tables: block ids of each sequence, int32 [seqs, blocks].
        lengths: tokens of each sequence.
        order: places of the sequences in the tree's own order, siblings side by side: int64 [seqs].
        spans: tokens of each level that are shared as whole blocks, root first; the rest is the leaf's.
        groups: nodes of each level.
    """

    query: Tensor
    caches: list[Tensor]
    tables: Tensor
    lengths: list[int]
    order: Tensor
    spans: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def scale(self) -> float:
        """1 / sqrt(dim)."""
        return float(self.query.shape[-1] ** -0.5)


def cases(device: str, *, quick: bool) -> list[Case]:
    """The trees."""
    return [_case(tree, device) for tree in (QUICK if quick else SHAPES)]


def _case(tree: Tree, device: str) -> Case:
    groups, spans = _shape(tree)
    seqs, model = groups[-1], tree.model
    unique = sum(group * span for group, span in zip(groups, spans, strict=True))
    size = unique * model.kv_heads * 2 * model.dim * 2 + 2 * seqs * model.heads * model.dim * 2
    facts = {
        "levels": tree.levels,
        "shuffled": tree.shuffled,
        "model": model.name,
        "sequences": seqs,
        "unique_tokens": unique,
        "read_by_stock": seqs * sum(spans),
        "block": BLOCK,
    }
    return Case(tree.label, facts, size, partial(_contenders, tree, device))


def _shape(tree: Tree) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Nodes and tokens of each level, where only whole blocks are shared: what is left over is each leaf's own."""
    groups = tuple(accumulate((fan for fan, _ in tree.levels), lambda one, other: one * other))
    shared = [tokens // BLOCK * BLOCK for _, tokens in tree.levels[:-1]]
    own = sum(tokens for _, tokens in tree.levels) - sum(shared)
    return groups, (*shared, own)


def make(tree: Tree, device: str) -> Batch:
    """Random keys and values, in blocks that lie anywhere in the cache."""
    generator = torch.Generator(device).manual_seed(0)
    groups, spans = _shape(tree)
    counts = [-(-span // BLOCK) for span in spans]
    blocks = sum(group * count for group, count in zip(groups, counts, strict=True))
    ids = torch.randperm(blocks, device=device, generator=generator).int()
    pieces, start, seqs = [], 0, groups[-1]
    for group, count in zip(groups, counts, strict=True):
        level = ids[start : start + group * count].view(group, count)
        pieces.append(level.repeat_interleave(seqs // group, 0))
        start += group * count
    tables = torch.cat(pieces, 1)
    order = torch.arange(seqs, device=device)
    if tree.shuffled:
        order = torch.randperm(seqs, device=device, generator=generator)
        tables = torch.empty_like(tables).index_copy_(0, order, tables)
    model = tree.model
    shape = (blocks, model.kv_heads, BLOCK, 2 * model.dim)
    size = 2 * blocks * model.kv_heads * BLOCK * 2 * model.dim
    caches = [
        torch.randn(shape, device=device, generator=generator, dtype=torch.bfloat16)
        for _ in range(rotations(size, l2_bytes()))
    ]
    query = torch.randn(seqs, model.heads, model.dim, device=device, generator=generator).bfloat16()
    return Batch(query, caches, tables.contiguous(), [sum(spans)] * seqs, order, spans, groups)


def _contenders(tree: Tree, device: str) -> Sequence[Contender]:
    batch = make(tree, device)

    def check(found: Tensor) -> Check:
        return check_attention(found, batch.query, batch.caches[0], batch.tables, batch.lengths, batch.scale)

    return [
        Contender(OURS, lambda: ours(batch, grouped=True), check),
        Contender(f"{OURS}, nothing grouped", lambda: ours(batch, grouped=False), check),
        *others(batch, check),
    ]


def ours(batch: Batch, *, grouped: bool) -> list[Call]:
    """One call per cache. The plan is made beforehand: an engine makes one when a sequence joins or leaves."""
    forest = Forest.of(batch.tables, batch.lengths, BLOCK)
    if not grouped:
        stops = (-(-forest.seq_lens // BLOCK)).tolist()
        rows = enumerate(zip(forest.tables, stops, strict=True))
        alone = tuple(Node(np.array([row], np.int32), 0, table[:stop], -1) for row, (table, stop) in rows)
        forest = replace(forest, nodes=alone)
    kv_heads, device = batch.caches[0].shape[1], batch.query.device
    plan = Plan.of(forest, heads=batch.query.shape[1], kv_heads=kv_heads, device=device)
    lengths = torch.tensor(batch.lengths, dtype=torch.int32, device=device)
    return [partial(forest_attention, batch.query, one, plan, lengths, scale=batch.scale) for one in batch.caches]
