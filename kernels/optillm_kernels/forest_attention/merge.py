"""Attention over parts of the keys, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def merge(
    partials: Float[Tensor, "parts *rows dim"], logsumexps: Float[Tensor, " parts *rows"]
) -> tuple[Float[Tensor, "*rows dim"], Float[Tensor, "*rows"]]:
    """Attention over all parts, and its log-sum-exp, in float32 or wider.

    o = sum_i e^(l_i - l) o_i with l = log sum_i e^(l_i): associative, and free of order but for rounding. A part
    with l_i = -inf has no keys: it weighs nothing, whatever o_i holds. Natural logarithms. Source: Juravsky et
    al., "Hydragen", 2024 (arXiv 2402.05099), section 3.1.
    """
    if partials.dtype != torch.float64:
        partials, logsumexps = partials.float(), logsumexps.float()
    total = logsumexps.logsumexp(dim=0)
    weights = (logsumexps - total.nan_to_num(neginf=0.0)).exp()
    held = partials.masked_fill((logsumexps == -torch.inf).unsqueeze(-1), 0.0)
    return (weights.unsqueeze(-1) * held).sum(dim=0), total
