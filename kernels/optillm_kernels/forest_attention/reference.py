"""Forest attention in plain torch: what the kernel computes, node by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optillm_kernels.forest_attention.merge import merge

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from optillm_kernels.forest_attention.plan import Plan


def forest_attention(
    query: Float[Tensor, "seqs heads dim"],
    kv_cache: Float[Tensor, "blocks kv_heads block_size two_dim"],
    plan: Plan,
    seq_lens: Int[Tensor, " seqs"],
    *,
    scale: float,
    soft_cap: float = 0.0,
    block_tables: Int[Tensor, "seqs blocks"] | None = None,
    out: Float[Tensor, "seqs heads dim"] | None = None,
) -> Float[Tensor, "seqs heads dim"]:
    """softmax(x) V per sequence and head, with x = scale q K^T, or cap tanh(scale q K^T / cap).

    Each node of the forest is read once for all its sequences; what a sequence gets from the nodes on its path is
    merged by log-sum-exp, see `merge`. In float32, or in float64 if the query is. Copies lengths to the host.

    Raises:
        ValueError: a sequence has more tokens than its blocks hold.
    """
    tables = plan.tables if block_tables is None else block_tables
    lengths = seq_lens.tolist()
    forest = plan.forest
    rows, heads, dim = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    total = query.new_zeros(rows, heads, dim, dtype=wide)
    logsumexp = query.new_full((rows, heads), -torch.inf, dtype=wide)
    for node in forest.nodes:
        row = int(node.sequences[0])
        start = node.first * forest.block_size
        tokens = len(node.blocks) * forest.block_size if node.shared else lengths[row] - start
        if tokens == 0:
            continue
        blocks = tables[row, node.first : node.first + -(-tokens // forest.block_size)]
        held = kv_cache[blocks.long()].transpose(1, 2).flatten(0, 1)[:tokens].to(wide)
        if len(held) < tokens:
            raise ValueError(f"block_tables: row {row} has {lengths[row]} tokens, more than its blocks hold")
        keys, values = held[..., :dim], held[..., dim:]
        members = torch.from_numpy(node.sequences).to(query.device, torch.int64)
        partial, own = _attend(query[members].to(wide), keys, values, scale, soft_cap)
        total[members], logsumexp[members] = merge(
            torch.stack([total[members], partial]), torch.stack([logsumexp[members], own])
        )
    return total.to(query.dtype) if out is None else out.copy_(total)


def _attend(
    query: Float[Tensor, "members heads dim"],
    keys: Float[Tensor, "tokens kv_heads dim"],
    values: Float[Tensor, "tokens kv_heads dim"],
    scale: float,
    soft_cap: float,
) -> tuple[Float[Tensor, "members heads dim"], Float[Tensor, "members heads"]]:
    """All members over the same keys, and the log-sum-exp of their scores."""
    grouped = query.reshape(len(query), keys.shape[1], -1, query.shape[2])
    scores = torch.einsum("mkgd,tkd->mkgt", grouped, keys) * scale
    if soft_cap:
        scores = soft_cap * (scores / soft_cap).tanh()
    partial = torch.einsum("mkgt,tkd->mkgd", scores.softmax(dim=-1), values)
    return partial.flatten(1, 2), scores.logsumexp(dim=-1).flatten(1, 2)
