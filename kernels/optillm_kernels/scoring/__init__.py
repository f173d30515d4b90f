"""Teacher-forced statistics of given tokens, in float32, from hidden states and the LM head.

Log-probability, entropy, rank, likeliest token and self-certainty, without a `[tokens, vocab]` tensor: products in
chunks of the vocabulary, each folded into a small state per token. Shards of the vocabulary (tensor parallelism)
reduce to the same: `find_target_logits` on each, their maximum, `fold_shard` on each, `combine_all`, `finish`.
Up to 128 tokens, for which a product with the head takes as long as reading it, one kernel on Hopper, or on
Blackwell's data-centre GPUs, multiplies and folds at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optillm_kernels.backend import use_triton
from optillm_kernels.scoring import chunked
from optillm_kernels.scoring.chunked import Shard, find_target_logits, fold_shard
from optillm_kernels.scoring.state import Scores, State, combine, combine_all, finish, fold

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = [
    "Scores",
    "Shard",
    "State",
    "combine",
    "combine_all",
    "find_target_logits",
    "finish",
    "fold",
    "fold_shard",
    "score",
]


def score(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    bias: Float[Tensor, " vocab"] | None = None,
) -> Scores:
    """Statistics of one given token per row.

    Args:
        hidden: what goes into the head, of any float type.
        targets: the given tokens. One outside the vocabulary has no probability, and ranks behind all others.
        scale, soft_cap: logits are soft_cap * tanh(scale * (hidden @ weight.T + bias) / soft_cap).

    Raises:
        ValueError: scale or soft cap is not positive; larger products would no longer be likelier.
    """
    if not (scale > 0 and (soft_cap is None or soft_cap > 0)):
        raise ValueError(f"scale and soft_cap must be positive, not {scale} and {soft_cap}; no cap is None")
    if use_triton(hidden):
        from optillm_kernels.scoring import triton

        if triton.covers(hidden, weight):
            with torch.cuda.device_of(hidden):  # type: ignore[no-untyped-call]
                return triton.score(hidden, weight, targets, scale=scale, soft_cap=soft_cap, bias=bias)
    return chunked.score(hidden, Shard(weight, bias, scale=scale, soft_cap=soft_cap), targets)
