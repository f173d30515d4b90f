"""Tokens that are drawn from the list, or from the whole row, are those of the distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from optillm_kernels.uncertainty import Draw, measure_and_draw, reference
from optillm_kernels.uncertainty.noise import uniform
from optillm_kernels.uncertainty.triton import Tile
from optillm_kernels.uncertainty.triton import measure_and_draw as with_tile

Rows = Callable[[str, int], torch.Tensor]
SMALL = Tile(16, 4, 2)
CUTS = {
    "greedy": {"temperature": 0.0, "top_p": 0.3, "top_k": 0},
    "whole": {},
    "cold": {"temperature": 0.4},
    "hot": {"temperature": 30.0},
    "top-k": {"top_k": 6},
    "top-p": {"top_p": 0.6},
    "min-p": {"min_p": 0.2},
    "all": {"temperature": 0.7, "top_k": 12, "top_p": 0.8, "min_p": 0.01},
}


def draw(rows: int, seed: int = 0, **how: float) -> Draw:
    given = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0} | how
    same = {name: torch.full((rows,), float(given[name])) for name in ("temperature", "top_p", "min_p")}
    seeds = torch.arange(rows) * (2**33 + 1) - 5 + seed
    return Draw(top_k=torch.full((rows,), int(given["top_k"])), seed=seeds, position=seeds * 3 + 1, **same)


def distribution(logits: torch.Tensor, how: dict[str, float]) -> torch.Tensor:
    """By vLLM's order, over the whole sorted row: probabilities by id, in float64."""
    x = logits.double() / (how.get("temperature", 1.0) or 1e-9)
    x = x.masked_fill(x < x.max() + math.log(how.get("min_p", 0.0) or 1e-300), -math.inf)
    order = x.argsort(descending=True, stable=True)
    p = x[order][: int(how.get("top_k", 0)) or None].softmax(0)
    p = p.where(p.cumsum(0) - p < how.get("top_p", 1.0), 0.0)
    return torch.zeros_like(x).index_copy(0, order[: len(p)], p / p.sum())


@triton.jit
def noise_kernel(seeds, positions, out, n: tl.constexpr):
    lane = tl.arange(0, n)
    tl.store(out + lane, tl.rand(tl.load(seeds + lane), tl.load(positions + lane)))


def test_the_noise_is_tritons() -> None:
    seeds, positions = torch.randint(-(2**62), 2**62, (2, 256), generator=torch.Generator().manual_seed(1))
    out = torch.empty(256)
    noise_kernel[(1,)](seeds, positions, out, n=256)
    assert torch.equal(uniform(seeds, positions), out)
    assert out.min() >= 0 and out.max() < 1


@pytest.mark.parametrize("how", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("kind", ["random", "masked", "one token", "rounded"])
def test_the_kernel_draws_the_references_tokens(rows: Rows, how: dict[str, float], kind: str) -> None:
    logits = rows(kind, 300)
    _, expected, open_ = reference.measure_and_draw(logits.double(), draw(3, **how), 16)
    _, tokens, unsettled = with_tile(logits, draw(3, **how), 16, SMALL)
    assert unsettled.tolist() == open_.tolist()
    settled = ~open_
    assert torch.equal(logits.gather(1, tokens[:, None])[settled], logits.gather(1, expected[:, None])[settled])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_tile_that_ships_draws_too(rows: Rows, dtype: torch.dtype) -> None:
    logits = rows("random", 20011).to(dtype)
    for how in ({}, {"top_k": 7, "temperature": 0.6}):
        _, expected, _ = reference.measure_and_draw(logits.double(), draw(3, **how))
        _, tokens, unsettled = with_tile(logits, draw(3, **how))
        assert tokens.tolist() == expected.tolist() and not unsettled.any()


@pytest.mark.parametrize("how", CUTS.values(), ids=CUTS.keys())
def test_tokens_are_as_frequent_as_they_are_likely(rows: Rows, how: dict[str, float]) -> None:
    n = 20000
    logits = rows("random", 24)[:1] / 2
    _, tokens, unsettled = measure_and_draw(logits.expand(n, -1), draw(n, **how), 24)
    p = distribution(logits[0], how)
    seen = torch.bincount(tokens, minlength=24).double()
    assert not unsettled.any()
    assert not seen[p == 0].any()
    likely = p > 0
    squares = ((seen - n * p) ** 2 / (n * p))[likely].sum().item()
    freedom = int(likely.sum()) - 1
    assert squares <= freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("how", "open_"),
    [
        ({"top_k": 5}, False),
        ({"top_k": 6}, True),
        ({"top_k": 40}, False),
        ({"top_p": 0.5}, True),
        ({"top_p": 0.1}, False),
        ({"min_p": 0.5}, True),
        ({"temperature": 0.0, "top_p": 0.5}, False),
        ({}, False),
    ],
)
def test_a_row_is_unsettled_where_the_list_is_too_short(how: dict[str, float], open_: bool) -> None:
    flat = torch.zeros(1, 40)
    assert measure_and_draw(flat, draw(1, **how), 5)[2].item() is open_
    assert with_tile(flat, draw(1, **how), 5, SMALL)[2].item() is open_


def test_seeds_and_positions_may_be_of_32_bits(rows: Rows) -> None:
    logits, wide = rows("random", 300), draw(3)
    wide = replace(wide, seed=torch.arange(3) - 1, position=torch.arange(3) * 7)
    narrow = replace(wide, seed=wide.seed.int(), position=wide.position.int())
    for run in (measure_and_draw, lambda x, d: with_tile(x, d, 16, SMALL)):
        assert torch.equal(run(logits, narrow)[1], run(logits, wide)[1])


@pytest.mark.parametrize("run", [measure_and_draw, with_tile])
def test_a_masked_token_is_never_drawn(run: Callable[..., tuple[Any, ...]]) -> None:
    n = 400
    logits = torch.full((1, 200), -math.inf).index_fill(1, torch.tensor([77, 131, 190]), 0.0).expand(n, -1)
    _, tokens, unsettled = run(logits, draw(n), 2, *[SMALL] * (run is with_tile))
    assert not unsettled.any() and set(tokens.tolist()) == {77, 131, 190}


def test_the_same_seed_and_position_draw_the_same_token_in_any_batch(rows: Rows) -> None:
    logits = rows("random", 300)
    everything = draw(3)
    alone = Draw(**{name: value[1:2] for name, value in vars(everything).items()})
    for run in (measure_and_draw, lambda x, d: with_tile(x, d, 16, SMALL)):
        assert run(logits, everything)[1][1] == run(logits[1:2], alone)[1][0]
