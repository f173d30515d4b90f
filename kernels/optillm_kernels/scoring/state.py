"""The running state of a row of logits, folded over chunks of the vocabulary and combined over shards of it.

With m the largest logit so far, over the n logits x_v so far:

    s = sum exp(x_v - m)        u = sum exp(x_v - m) (x_v - m)        d = sum (x_v - m)

A larger m' leaves a s, a (u + (m - m') s) and d + n (m - m'), where a = exp(m - m'): two states of disjoint sets
of tokens are brought to the larger m and added. Everything is relative to m, so that logits of any size lose
nothing. Source of the recurrence for s: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jaxtyping import Float, Int
    from torch import Tensor

NOTHING = -1.0e30
"""The largest logit of no logits; finite, so that no difference of two is NaN, and no multiple of it overflows."""

VANISHES = -1000.0
"""Below this exp is 0, in float64 too. What is cut here has no weight, but no longer gives 0 * -inf = NaN."""


@dataclass(frozen=True)
class Scores:
    """Statistics of given tokens; natural logarithms, over the whole vocabulary.

    Attributes:
        logprob: log p of the given token; -inf of one that is not in the vocabulary.
        logsumexp: of all logits.
        entropy: H = -sum_v p_v log p_v, in nats.
        self_certainty: KL(uniform || p) = -mean_v log(V p_v), in nats. Source: Kang, Zhao and Song, "Scalable
            Best-of-N Selection for Large Language Models via Self-Certainty", 2025, section 3.
        top_logprob: of the likeliest token.
        rank: 1 + how many logits are strictly larger than the given token's, before a soft cap (which keeps their
            order but for rounding); 1 is the likeliest.
        top_id: the likeliest token; of equal ones the lowest id.
    """

    logprob: Float[Tensor, " tokens"]
    logsumexp: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"]
    self_certainty: Float[Tensor, " tokens"]
    top_logprob: Float[Tensor, " tokens"]
    rank: Int[Tensor, " tokens"]
    top_id: Int[Tensor, " tokens"]


@dataclass(frozen=True)
class State:
    """Of `columns` logits of each token.

    Attributes:
        peak: m, the largest logit.
        total, moment, deficit: s, u and d.
        above: how many logits are larger than the given token's.
        best: id of the largest; of equal ones the lowest.
        columns: n.
    """

    peak: Float[Tensor, " tokens"]
    total: Float[Tensor, " tokens"]
    moment: Float[Tensor, " tokens"]
    deficit: Float[Tensor, " tokens"]
    above: Int[Tensor, " tokens"]
    best: Int[Tensor, " tokens"]
    columns: int

    @classmethod
    def empty(cls, tokens: int, device: torch.device, dtype: torch.dtype = torch.float32) -> State:
        """Of no logits: what `combine` leaves as it is."""
        # A tensor each: a kernel is compiled anew for pointers that are not aligned.
        peak = torch.full((tokens,), NOTHING, device=device, dtype=dtype)
        total, moment, deficit = (torch.zeros_like(peak) for _ in range(3))
        above, best = (torch.zeros_like(peak, dtype=torch.int32) for _ in range(2))
        return cls(peak, total, moment, deficit, above, best, 0)


def capped(logits: Tensor, scale: float, soft_cap: float | None) -> Tensor:
    """scale * x, or soft_cap * tanh(scale * x / soft_cap)."""
    if soft_cap is None:
        return logits * scale if scale != 1.0 else logits
    return torch.tanh(logits * (scale / soft_cap)) * soft_cap


def fold(
    state: State,
    logits: Float[Tensor, "tokens columns"],
    targets: Int[Tensor, " tokens"],
    target_logits: Float[Tensor, " tokens"],
    *,
    first: int,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> State:
    """The state with the logits of tokens `first`, `first + 1`, ... added.

    Args:
        logits: without scale and soft cap. Overwritten.
        targets: the given tokens.
        target_logits: theirs, without scale and soft cap; they take the place of what `logits` has for these
            tokens, so that a token never differs from itself by rounding.
    """
    if not logits.shape[1]:
        return state
    here = targets - first
    inside = (here >= 0) & (here < logits.shape[1])
    column = here.clamp(0, logits.shape[1] - 1)[:, None]
    logits.scatter_(1, column, torch.where(inside[:, None], target_logits[:, None], logits.gather(1, column)))
    above = (logits > target_logits[:, None]).sum(dim=1, dtype=torch.int32)
    best = logits.argmax(dim=1, keepdim=True)
    if scale != 1.0 or soft_cap is not None:
        logits.copy_(capped(logits, scale, soft_cap))
    peak = logits.gather(1, best).clamp(min=NOTHING)
    relative = logits.sub_(peak)
    deficit = relative.sum(dim=1)
    weights = relative.clamp_(min=VANISHES).exp()
    moment = torch.linalg.vecdot(weights, relative)
    ids = (best[:, 0] + first).to(torch.int32)
    chunk = State(peak[:, 0], weights.sum(dim=1), moment, deficit, above, ids, logits.shape[1])
    return combine(state, chunk)


def combine(one: State, other: State) -> State:
    """The state of both sets of tokens, which have none in common. Commutative; associative up to rounding."""
    peak = torch.maximum(one.peak, other.peak)
    total, moment, deficit = torch.zeros(3, *peak.shape, device=peak.device, dtype=peak.dtype)
    for part in (one, other):
        shift = part.peak - peak
        factor = shift.exp()
        total += factor * part.total
        moment += factor * (part.moment + shift * part.total)
        deficit += part.deficit + (shift * part.columns if part.columns else 0.0)
    tied = torch.minimum(one.best, other.best) if one.columns and other.columns else one.best + other.best
    best = torch.where(one.peak > other.peak, one.best, torch.where(one.peak < other.peak, other.best, tied))
    return State(peak, total, moment, deficit, one.above + other.above, best, one.columns + other.columns)


def combine_all(states: Iterable[State]) -> State:
    """Of several shards, in their order."""
    return reduce(combine, states)


def stack(states: Sequence[State]) -> State:
    """Of the same columns, and one group of tokens after the other."""
    fields = zip(*((s.peak, s.total, s.moment, s.deficit, s.above, s.best) for s in states), strict=True)
    peak, total, moment, deficit, above, best = (torch.cat(parts) for parts in fields)
    return State(peak, total, moment, deficit, above, best, states[-1].columns)


def finish(
    state: State, target_logits: Float[Tensor, " tokens"], *, scale: float = 1.0, soft_cap: float | None = None
) -> Scores:
    """The statistics, from the state of the whole vocabulary."""
    log_total = state.total.log()
    return Scores(
        logprob=(capped(target_logits, scale, soft_cap) - state.peak) - log_total,
        logsumexp=state.peak + log_total,
        entropy=log_total - state.moment / state.total,
        self_certainty=log_total - state.deficit / state.columns - math.log(state.columns),
        top_logprob=-log_total,
        rank=state.above.long() + 1,
        top_id=state.best.long(),
    )
