"""The operation in plain torch. With d_v = x_v - max x, Z = sum_v exp(d_v) and p_v = exp(d_v) / Z, over V logits:

    logsumexp = max x + log Z           entropy = log Z - E_p[d]           varentropy = E_p[(d - E_p[d])^2]
    log p_v = d_v - log Z               self-certainty = log Z - mean_v d_v - log V

Everything is relative to the largest logit, so that logits of any size lose nothing. Float64 logits are measured
in float64, all others in float32.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING

import torch

from optillm_kernels.uncertainty.noise import uniform
from optillm_kernels.uncertainty.types import Draw, Uncertainty

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

ROWS = 8
"""Rows that a CPU measures at once: what it makes of them stays in its caches (3 times as fast as 32 rows)."""

VANISHES = -1000.0
"""Below this exp is 0, in float64 too; a finite number, so that no weight times it is NaN."""


def measure(logits: Float[Tensor, "rows vocab"], k: int = 20) -> Uncertainty:
    """Statistics of every row, and its k likeliest tokens (all, if the vocabulary is smaller)."""
    if not logits.is_cpu or len(logits) <= ROWS:
        return _measure(logits, k)
    parts = [_measure(rows, k) for rows in torch.split(logits, ROWS)]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Uncertainty)}
    return Uncertainty(**{name: torch.cat(column) for name, column in columns.items()})


def _measure(logits: Float[Tensor, "rows vocab"], k: int) -> Uncertainty:
    x = logits if logits.dtype == torch.float64 else logits.float()
    vocab = x.shape[1]
    top, ids = _top(x, min(k, vocab))
    peak = top[:, :1]
    d = x - peak
    deficit = d.mean(dim=1)
    weights = d.exp()
    total = weights.sum(dim=1)
    log_total = total.log()
    d.clamp_(min=VANISHES)
    mean = torch.linalg.vecdot(weights, d) / total
    d.sub_(mean[:, None]).square_()
    logprobs = (top - peak) - log_total[:, None]
    return Uncertainty(
        logsumexp=peak[:, 0] + log_total,
        entropy=log_total - mean,
        varentropy=torch.linalg.vecdot(weights, d) / total,
        self_certainty=log_total - deficit - math.log(vocab),
        top_ids=ids,
        top_logprobs=logprobs,
        confidence=-logprobs.mean(dim=1),
    )


def measure_and_draw(
    logits: Float[Tensor, "rows vocab"], draw: Draw, k: int = 20
) -> tuple[Uncertainty, Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """What `measure` finds, a token of every row, and whether that token is *not* to be taken.

    Every cut keeps the first tokens of the sorted row. The draw is exact where the k listed tokens prove which
    ones these are; a row where they do not is unsettled and needs an ordinary sampler. One number u in [0, 1) per
    row decides: the token is the first whose cumulative probability exceeds u, in the order of the list if
    anything is cut, in the order of ids otherwise.
    """
    found = measure(logits, k)
    vocab, listed = logits.shape[1], found.top_ids.shape[1]
    x = logits if logits.dtype == torch.float64 else logits.float()
    greedy = draw.temperature <= 0
    temperature = torch.where(greedy, 1.0, draw.temperature).to(x.dtype)[:, None]
    weights = ((x - x.amax(dim=1, keepdim=True)) / temperature).exp()
    total = weights.sum(dim=1)

    table = ((found.top_logprobs - found.top_logprobs[:, :1]) / temperature).exp()
    index = torch.arange(listed, device=x.device)
    top_k = torch.where((draw.top_k < 1) | (draw.top_k > vocab), vocab, draw.top_k).masked_fill(greedy, 1)
    kept = (table >= draw.min_p.to(x.dtype)[:, None]) & (index < top_k[:, None])
    cut = ~kept[:, -1] | (top_k <= listed)  # by min-p or top-k, within the list
    whole = (draw.min_p <= 0) & (top_k >= vocab)  # by neither, anywhere
    left = torch.where(cut, (table * kept).sum(dim=1), total)
    nucleus = (draw.top_p < 1) & ~greedy
    limit = torch.where(nucleus, draw.top_p.to(x.dtype) * left, math.inf)
    settled = cut | (whole & nucleus & (table.sum(dim=1) >= limit))
    before = table.cumsum(dim=1) - table
    kept &= (before < limit[:, None]) | (index == 0)

    u = uniform(draw.seed, draw.position).to(x.dtype)
    from_list = found.top_ids.gather(1, _first_beyond(table * kept, u))[:, 0]
    plain = whole & ~nucleus
    from_all = _first_beyond(weights, u)[:, 0]
    tokens = torch.where(plain & ~cut, from_all, from_list)
    return found, tokens, ~(settled | plain)


def _top(x: Float[Tensor, "rows vocab"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest; of equal ones the lower id first, as far as they are among the k that `topk` picks."""
    ids = x.topk(k, dim=1).indices.sort(dim=1).values
    top, order = x.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return top, ids.gather(1, order)


def _first_beyond(weights: Float[Tensor, "rows n"], u: Float[Tensor, " rows"]) -> Int[Tensor, "rows 1"]:
    """The first index whose cumulative weight exceeds the share u of all; the last that has any, by rounding."""
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1:].contiguous()
    first = torch.searchsorted(cumulative, u[:, None] * total, right=True)
    return torch.minimum(first, torch.searchsorted(cumulative, total))
