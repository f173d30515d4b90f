"""Decode attention for sequences that share cached prefixes: each shared run of the KV cache is read once.

Sequences that share blocks form a forest, of any depth: system prompt, question, branch, own suffix. `Forest.of`
reads it off the block tables, `Plan.of` makes a work list for the device, `forest_attention` runs one layer of one
decode step. A forest and its plan hold until a sequence joins or leaves: shared runs do not change, and how far a
sequence's own suffix reaches is read from `seq_lens` on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from optillm_kernels.backend import use_triton
from optillm_kernels.forest_attention import reference
from optillm_kernels.forest_attention.forest import Forest, Node, pays
from optillm_kernels.forest_attention.merge import merge
from optillm_kernels.forest_attention.plan import Capacity, Plan

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Capacity", "Forest", "Node", "Plan", "forest_attention", "merge", "pays"]


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
    """Attention of one new token per sequence over its cached tokens, its own included.

    Args:
        kv_cache: K in `[..., :dim]`, V in `[..., dim:]`; its axes may lie in memory in any order but the last.
        plan: of these sequences, in this order.
        seq_lens: int32, on the device; the new token counts.
        scale: of the scores, mostly 1 / sqrt(dim).
        soft_cap: bounds the scores by a tanh; 0 does not.
        block_tables: int32, on the device, of the sequences as they are now; without it the plan's own, which hold
            until a sequence gets a new block.
        out: where to write; it may be part of a larger tensor.
    """
    how: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "block_tables": block_tables, "out": out}
    if use_triton(query):
        from optillm_kernels.forest_attention import triton

        with torch.cuda.device(query.device):  # Triton launches on the current one
            return triton.forest_attention(query, kv_cache, plan, seq_lens, **how)
    return reference.forest_attention(query, kv_cache, plan, seq_lens, **how)
