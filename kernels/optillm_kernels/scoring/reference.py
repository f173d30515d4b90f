"""The operation in plain torch, on all logits at once: to read, and to check against.

    x_v = c tanh(a (h . w_v + b_v) / c)        a: scale; c: soft cap, without which x_v = a (h . w_v + b_v)
    log p_y = x_y - logsumexp x                entropy = -sum_v p_v log p_v
    rank_y = 1 + |{v: h . w_v + b_v > h . w_y + b_y}|        self-certainty = -mean_v log(V p_v)

Sources: the soft cap is Gemma 2's (Gemma Team, 2024, section 2); self-certainty is of Kang, Zhao and Song, 2025.
Float64 operands are scored in float64, all others in float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from optillm_kernels.scoring.state import Scores, capped

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@torch.no_grad()
def score(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    bias: Float[Tensor, " vocab"] | None = None,
) -> Scores:
    """Statistics of one given token per row. Holds all logits, of which `chunked` holds a few."""
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    raw = hidden.to(dtype) @ weight.to(dtype).T
    if bias is not None:
        raw += bias.to(dtype)
    logits = capped(raw, scale, soft_cap)
    logprobs = logits.log_softmax(dim=1)
    given = targets[:, None]
    return Scores(
        logprob=logprobs.gather(1, given)[:, 0],
        logsumexp=logits.logsumexp(dim=1),
        entropy=torch.special.entr(logprobs.exp()).sum(dim=1),
        self_certainty=-logprobs.mean(dim=1) - math.log(weight.shape[0]),
        top_logprob=logprobs.amax(dim=1),
        rank=1 + (raw > raw.gather(1, given)).sum(dim=1),
        top_id=logits.argmax(dim=1),
    )
