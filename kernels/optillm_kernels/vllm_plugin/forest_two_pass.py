"""Shared prefixes read once with the two attention calls and the merge that vLLM ships: no kernel of ours.

Pass one: each group of sequences that share a run is one "sequence" with many queries over that run. Pass two:
each sequence attends to what follows its run. Their results are merged by their log-sum-exps (Hydragen, arXiv
2402.05099, section 3.1). Only one level of sharing fits in, so `best_cut` picks the one that saves the most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from optillm_kernels.forest_attention import Forest

Attend = Callable[..., Any]
"""Like vLLM's `flash_attn_varlen_func`: returns the output and its log-sum-exps of shape (heads, rows)."""


Run = tuple[list[int], list[int]]
"""Rows, and the leading blocks that they share."""


def best_cut(forest: Forest) -> tuple[list[Run], int]:
    """Disjoint groups of sequences, each with all it shares, that save the most KV tokens; and how many they save.

    A node as one group saves (sequences - 1) x (blocks down to its end); its children may save more between them.
    """
    nodes = [node for node in forest.nodes if node.shared]
    own = [(len(node.sequences) - 1) * (node.first + len(node.blocks)) for node in nodes]
    below = [0] * len(nodes)
    for index in reversed(range(len(nodes))):  # children come after their parents
        if (parent := nodes[index].parent) >= 0:
            below[parent] += max(own[index], below[index])
    runs, covered = [], [False] * len(nodes)
    for index, node in enumerate(nodes):
        inside = node.parent >= 0 and covered[node.parent]
        covered[index] = inside or own[index] >= below[index]
        if covered[index] and not inside:
            rows = node.sequences.tolist()
            runs.append((rows, forest.tables[rows[0], : node.first + len(node.blocks)].tolist()))
    return runs, sum((len(rows) - 1) * len(blocks) for rows, blocks in runs) * forest.block_size


@dataclass(frozen=True)
class Groups:
    """Which rows share which blocks, on the device.

    Attributes:
        rows: rows that share a run, group after group.
        starts: where each group starts in `rows`, and the end.
        tables: blocks of each group's run, filled up with block 0.
        lengths: tokens of each group's run.
        skipped: per row of the batch, blocks of its run; 0 where it shares none.
        widest, longest: most rows in a group, most tokens in a run.
    """

    rows: Int[Tensor, " shared"]
    starts: Int[Tensor, " groups+1"]
    tables: Int[Tensor, "groups blocks"]
    lengths: Int[Tensor, " groups"]
    skipped: Int[Tensor, " rows"]
    widest: int
    longest: int
    _nothing: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, runs: Sequence[Run], rows: int, block_size: int, device: torch.device) -> Groups:
        """Of a batch of `rows` sequences."""
        members, blocks = zip(*runs, strict=True)
        width = max(map(len, blocks))
        skipped = [0] * rows
        for who, run in zip(members, blocks, strict=True):
            for row in who:
                skipped[row] = len(run)

        def held(values: list[Any], dtype: torch.dtype = torch.int32) -> Tensor:
            here = torch.tensor(values, dtype=dtype)
            # From pinned memory, the host need not wait until the device gets to the copy.
            return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here

        starts = [0]
        for who in members:
            starts.append(starts[-1] + len(who))
        return cls(
            rows=held([row for who in members for row in who], torch.int64),
            starts=held(starts),
            tables=held([run + [0] * (width - len(run)) for run in blocks]),
            lengths=held([len(run) * block_size for run in blocks]),
            skipped=held(skipped),
            widest=max(map(len, members)),
            longest=width * block_size,
        )

    def nothing(self, own: Tensor, own_lse: Tensor) -> tuple[Tensor, Tensor]:
        """Buffers for the results of runs. Rows without one merge with nothing: a log-sum-exp of -inf weighs 0.

        They are made once, as layers run one after the other and write the same rows.
        """
        if not self._nothing:
            self._nothing.append((torch.zeros_like(own), torch.full_like(own_lse, float("-inf"))))
        return self._nothing[0]


@dataclass(frozen=True)
class Suffixes:
    """What each row reads for itself in one step; made once a step and used by every layer."""

    tables: Int[Tensor, "rows blocks"]
    lengths: Int[Tensor, " rows"]
    starts: Int[Tensor, " rows+1"]
    longest: int

    @classmethod
    def of(
        cls,
        groups: Groups,
        tables: Int[Tensor, "rows blocks"],
        lengths: Int[Tensor, " rows"],
        starts: Int[Tensor, " rows+1"],
        longest: int,
        block_size: int,
    ) -> Suffixes:
        """`tables` and `lengths` without each row's shared run. `longest` may be an upper bound."""
        columns = torch.arange(-(-longest // block_size), device=tables.device)
        behind = (groups.skipped[:, None] + columns).clamp(max=tables.shape[1] - 1)
        return cls(tables.gather(1, behind), lengths - groups.skipped * block_size, starts, longest)


def two_pass(
    query: Float[Tensor, "rows heads dim"],
    key_cache: Float[Tensor, "blocks block_size kv_heads dim"],
    value_cache: Float[Tensor, "blocks block_size kv_heads dim"],
    output: Float[Tensor, "rows heads dim"],
    groups: Groups,
    suffixes: Suffixes,
    *,
    attend: Attend,
    merge: Callable[..., None],
    **options: Any,
) -> None:
    """Decode attention into `output`. `options` go to `attend` as they are: scale, soft cap, version."""
    caches = {"k": key_cache, "v": value_cache, "return_softmax_lse": True, "causal": False, **options}
    shared, shared_lse = attend(
        q=query.index_select(0, groups.rows),
        cu_seqlens_q=groups.starts,
        max_seqlen_q=groups.widest,
        seqused_k=groups.lengths,
        max_seqlen_k=groups.longest,
        block_table=groups.tables,
        **caches,
    )[:2]
    own, own_lse = attend(
        q=query,
        cu_seqlens_q=suffixes.starts,
        max_seqlen_q=1,
        seqused_k=suffixes.lengths,
        max_seqlen_k=suffixes.longest,
        block_table=suffixes.tables,
        **caches,
    )[:2]
    prefix, prefix_lse = groups.nothing(own, own_lse)
    prefix.index_copy_(0, groups.rows, shared)
    prefix_lse.index_copy_(1, groups.rows, shared_lse)
    merge(output, prefix, prefix_lse, own, own_lse)
