"""The operations in float64, written again from their definitions: nothing here is taken from what is checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from contest import Check, greatest
from torch import Tensor

CHUNK = 64
"""Rows at a time: float64 copies of all logits would not fit."""

BEYOND = 1e30
"""The error of what is plainly wrong; JSON has no infinity."""

STATISTIC = 1e-4
"""Limit for a statistic of logits, relative above 1."""


def _relative(found: Tensor, true: Tensor) -> float:
    """Largest |found - true| / max(1, |true|); equal infinities count as equal."""
    found, true = found.double(), true.double()
    error = torch.where(found == true, 0.0, (found - true).abs() / true.abs().clamp(min=1.0))
    return float(error.nan_to_num(nan=BEYOND).max())


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK))


def statistics(logits: Tensor) -> dict[str, Tensor]:
    """Of logits [rows, vocab]: logsumexp, entropy, varentropy and self_certainty, in nats, over all tokens."""
    x = logits.double()
    lse = torch.logsumexp(x, -1)
    logp = x - lse[:, None]
    p = logp.exp()
    finite = torch.where(p > 0, logp, 0.0)  # 0 log 0 = 0
    entropy = -(p * finite).sum(-1)
    varentropy = (p * (finite + entropy[:, None]) ** 2).sum(-1)
    certainty = lse - x.mean(-1) - math.log(x.shape[-1])
    return {"logsumexp": lse, "entropy": entropy, "varentropy": varentropy, "self_certainty": certainty}


def check_uncertainty(logits: Tensor, found: Any, k: int) -> Check:
    """Every statistic of every row, the listed log-probabilities, and that no other logits are larger."""
    errors: dict[str, float] = {}

    def note(name: str, error: float) -> None:
        errors[name] = max(errors.get(name, 0.0), error)

    for rows in _chunks(logits.shape[0]):
        true = statistics(logits[rows])
        for name, values in true.items():
            note(name, _relative(getattr(found, name)[rows], values))
        best = logits[rows].double().topk(k, -1).values
        listed = logits[rows].double().gather(-1, found.top_ids[rows])
        note("top_ids", 0.0 if torch.equal(best, listed) else BEYOND)
        logprobs = best - true["logsumexp"][:, None]
        note("top_logprobs", _relative(found.top_logprobs[rows], logprobs))
        note("confidence", _relative(found.confidence[rows], -logprobs.mean(-1)))
    distinct = found.top_ids.sort(-1).values.diff(dim=-1)
    note("top_ids", BEYOND if bool((distinct == 0).any()) else 0.0)
    return greatest({name: (error, STATISTIC) for name, error in errors.items()})


def check_drawn(logits: Tensor, tokens: Tensor, unsettled: Tensor, draw: Any) -> Check:
    """That every settled token is one that temperature, min-p, top-k and top-p leave, in that order."""
    outside = 0
    for rows in _chunks(logits.shape[0]):
        temperature = draw.temperature[rows, None].double().clamp(min=1e-6)
        values, ids = (logits[rows].double() / temperature).sort(dim=-1, descending=True, stable=True)
        p = values.softmax(-1)
        rank = torch.arange(p.shape[-1], device=p.device)
        kept = p >= draw.min_p[rows, None].double() * p[:, :1]
        kept &= (rank < draw.top_k[rows, None]) | (draw.top_k[rows, None] <= 0)
        p = torch.where(kept, p, 0.0)
        p = p / p.sum(-1, keepdim=True)
        # A token is kept while those before it have less than top-p; float32 may see the edge elsewhere.
        kept &= p.cumsum(-1) - p < draw.top_p[rows, None].double() + 1e-5
        least = torch.where(kept, values, math.inf).amin(-1)  # ties at the edge are as likely, in any order
        drawn = values.gather(-1, (ids == tokens[rows, None]).int().argmax(-1, keepdim=True))[:, 0]
        outside += int(((drawn < least) & ~unsettled[rows]).sum())
    return Check(float(outside), 0.0, "tokens outside the support")


def attend(query: Tensor, kv_cache: Tensor, blocks: Tensor, length: int, scale: float) -> Tensor:
    """One decode step of one sequence: query [heads, dim], its block ids, its length; [heads, dim]."""
    dim, block_size = query.shape[-1], kv_cache.shape[2]
    used = kv_cache[blocks[: -(-length // block_size)].long()].transpose(0, 1).double()
    kv = used.reshape(kv_cache.shape[1], -1, 2 * dim)[:, :length]
    grouped = query.double().reshape(kv.shape[0], -1, dim)
    weights = (grouped @ kv[..., :dim].transpose(1, 2) * scale).softmax(-1)
    return (weights @ kv[..., dim:]).reshape(query.shape)


def check_attention(
    found: Tensor, query: Tensor, kv_cache: Tensor, tables: Tensor, lengths: list[int], scale: float
) -> Check:
    """Of 64 sequences, evenly spaced: the largest error of a head, rms over its numbers, relative to their size.

    Types rounded to 8 bits leave 0.002 to 0.004 of it; one token left out of 2,560 makes it 0.02.
    """
    limit = {torch.float32: 1e-4, torch.float16: 2e-3}.get(found.dtype, 1e-2)
    worst = 0.0
    for index in range(0, len(lengths), max(1, len(lengths) // 64)):
        true = attend(query[index], kv_cache, tables[index], lengths[index], scale)
        errors = (found[index].double() - true).pow(2).mean(-1).sqrt() / true.pow(2).mean().sqrt()
        worst = max(worst, float(errors.nan_to_num(nan=BEYOND).max()))
    return Check(worst, limit, "output")


def check_scores(
    found: Any, hidden: Tensor, weight: Tensor, targets: Tensor, soft_cap: float | None = None, tokens: int = 128
) -> Check:
    """Of `tokens` tokens, evenly spaced. A rank may be off by near ties: by 2, or a thousandth."""
    step = max(1, hidden.shape[0] // tokens)
    wide, errors = weight.double(), dict[str, float]()
    for chosen in torch.arange(0, hidden.shape[0], step, device=hidden.device).split(CHUNK):
        x = hidden[chosen].double() @ wide.T
        x = x if soft_cap is None else soft_cap * torch.tanh(x / soft_cap)
        true = statistics(x)
        own = x.gather(-1, targets[chosen, None])
        true["logprob"] = own[:, 0] - true["logsumexp"]
        true["top_logprob"] = x.amax(-1) - true["logsumexp"]
        del true["varentropy"]  # not among the scores
        for name, values in true.items():
            errors[name] = max(errors.get(name, 0.0), _relative(getattr(found, name)[chosen], values))
        rank = 1 + (x > own).sum(-1)
        off = (found.rank[chosen] - rank).abs() / (2 + rank / 1000)
        errors["rank"] = max(errors.get("rank", 0.0), float(off.max()))
        chosen_top = x.gather(-1, found.top_id[chosen, None])[:, 0]
        errors["top_id"] = max(errors.get("top_id", 0.0), _relative(chosen_top, x.amax(-1)))
    return greatest({name: (error, 1.0 if name == "rank" else 1e-3) for name, error in errors.items()})
