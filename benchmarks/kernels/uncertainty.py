"""Statistics of logits and a token drawn from them, at the shapes of a decode step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contest import OURS, OURS_AND_DRAW, Case, Contender
from float64 import check_drawn, check_uncertainty
from optillm_kernels.uncertainty import Draw, measure, measure_and_draw
from timing import l2_bytes, rotations
from torch import Tensor
from uncertainty_others import others

K = 20
"""Alternatives per token: what vLLM lists at most by default, and what DeepConf uses."""

# Rows, vocabulary, type, logits; what the bars are about comes first.
SHAPES = (
    (512, 128256, torch.bfloat16, "realistic"),
    (256, 128256, torch.bfloat16, "realistic"),
    (64, 128256, torch.bfloat16, "realistic"),
    (16, 128256, torch.bfloat16, "realistic"),
    (512, 151936, torch.bfloat16, "realistic"),
    (256, 151936, torch.bfloat16, "realistic"),
    (512, 128256, torch.bfloat16, "random"),
    (512, 128256, torch.float32, "realistic"),
    (256, 128256, torch.float32, "random"),
    (64, 151936, torch.bfloat16, "realistic"),
    (16, 151936, torch.bfloat16, "random"),
)
QUICK = ((5, 1000, torch.float32, "realistic"), (3, 777, torch.bfloat16, "random"))


def cases(device: str, *, quick: bool, logits: Path | None) -> list[Case]:
    """Shapes; `logits` names a saved tensor [rows, vocab] of real logits, which then come first."""
    found = []
    if logits is not None:
        real = torch.load(logits, map_location=device, weights_only=True)
        found.append(_case(*real.shape, real.dtype, "real", partial(_copies, real)))
    for rows, vocab, dtype, kind in QUICK if quick else SHAPES:
        make = partial(_made, rows, vocab, dtype, kind, device)
        found.append(_case(rows, vocab, dtype, kind, make))
    return found


def _case(rows: int, vocab: int, dtype: torch.dtype, kind: str, make: Any) -> Case:
    name = str(dtype).removeprefix("torch.")
    facts = {"rows": rows, "vocab": vocab, "dtype": name, "logits": kind, "k": K}
    size = rows * vocab * dtype.itemsize
    return Case(f"{rows} x {vocab} {name} {kind}", facts, size, partial(_contenders, make))


def _contenders(make: Any) -> Sequence[Contender]:
    batches: list[Tensor] = make()
    first = batches[0]
    draw = a_draw(first.shape[0], first.device)
    return [
        Contender(
            OURS,
            lambda: [partial(measure, one, K) for one in batches],
            lambda found: check_uncertainty(first, found, K),
        ),
        Contender(
            OURS_AND_DRAW,
            lambda: [partial(measure_and_draw, one, draw, K) for one in batches],
            lambda found: check_drawn(first, found[1], found[2], draw),
        ),
        *others(batches, draw, K),
    ]


def a_draw(rows: int, device: torch.device | str) -> Draw:
    """What reasoning models recommend: temperature 0.6, top-p 0.95, top-k 20; a seed for every row."""
    full = partial(torch.full, (rows,), device=device)
    return Draw(
        temperature=full(0.6, dtype=torch.float32),
        top_p=full(0.95, dtype=torch.float32),
        min_p=full(0.0, dtype=torch.float32),
        top_k=full(20, dtype=torch.int32),
        seed=torch.arange(rows, dtype=torch.int64, device=device),
        position=full(1000, dtype=torch.int64),
    )


def realistic(rows: int, vocab: int, device: str, generator: torch.Generator) -> Tensor:
    """Logits shaped like a language model's: a wide bulk, and a few hundred tokens that fall off like a power.

    How sharp the head is differs from row to row, from a token that is certain to hundreds that are possible.
    """
    x = 2.2 * torch.randn(rows, vocab, device=device, generator=generator)
    head = min(300, vocab)
    fall = torch.arange(1, head + 1, device=device).log()
    top = 12 + 10 * torch.rand(rows, 1, device=device, generator=generator)
    slope = 0.8 + 2.5 * torch.rand(rows, 1, device=device, generator=generator)
    ids = torch.rand(rows, vocab, device=device, generator=generator).topk(head).indices
    return x.scatter_(-1, ids, top - slope * fall)


def _made(rows: int, vocab: int, dtype: torch.dtype, kind: str, device: str) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(rows + vocab)

    def one() -> Tensor:
        if kind == "realistic":
            return realistic(rows, vocab, device, generator).to(dtype)
        return torch.randn(rows, vocab, device=device, generator=generator).to(dtype)

    return [one() for _ in range(rotations(rows * vocab * dtype.itemsize, l2_bytes()))]


def _copies(logits: Tensor) -> list[Tensor]:
    return [logits.clone() for _ in range(rotations(logits.nbytes, l2_bytes()))]
