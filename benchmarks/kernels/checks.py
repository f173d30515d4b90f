"""Every kernel as the GPU runs it, on awkward input, against float64: what the tests do in Triton's interpreter.

Nothing is timed. Shapes that are multiples of nothing, ties, masked and certain rows, ragged forests, soft caps;
and that a row's numbers do not depend on what else is in the batch, bit by bit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product, zip_longest

import forest
import torch
from contest import NOT_REACHED, OURS, Check, Row, reason
from float64 import check_attention, check_drawn, check_scores, check_uncertainty
from optillm_kernels.scoring import score
from optillm_kernels.uncertainty import ConfidenceWindow, measure, measure_and_draw
from torch import Tensor
from uncertainty import a_draw

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Named = tuple[str, str, Callable[[], Check]]


def rows(device: str, *, quick: bool, ends: float) -> Iterator[Row]:
    """One for each check; a `problem` where it failed. None is begun after `ends`, on the monotonic clock."""
    # In turn, so that time that runs out takes from all operations alike.
    in_turn = zip_longest(_forest(device), _scoring(device, quick), _uncertainty(device, quick))
    for operation, label, check in (one for some in in_turn for one in some if one):
        row = Row("checks", f"{operation}: {label}", OURS)
        if time.monotonic() > ends:
            row.problem = NOT_REACHED
            yield row
            continue
        try:
            found = check()
            row.check = asdict(found)
            if not found.is_met:
                row.problem = f"wrong: {found.of} is off by {found.error:.3g}, limit {found.limit:.3g}"
        except Exception as error:  # the others still tell something
            row.problem = reason(error)
        yield row


# -- uncertainty -----------------------------------------------------------------------------------------------


def _logits(kind: str, rows: int, vocab: int, device: str) -> Tensor:
    """float32 rows of one kind."""
    generator = torch.Generator(device).manual_seed(vocab)
    x = 3 * torch.randn(rows, vocab, device=device, generator=generator)
    if kind == "ties":
        return x.round()
    if kind == "masked":
        return torch.where(torch.rand(rows, vocab, device=device, generator=generator) < 0.5, x, -math.inf)
    if kind == "flat":
        return torch.zeros_like(x)
    if kind == "certain":
        return torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1e4)
    return x


def _uncertainty(device: str, quick: bool) -> Iterator[Named]:
    vocabs = (1001,) if quick else (1001, 50257, 128256)
    logits = _logits("random", 33, vocabs[-1], device).bfloat16()
    yield "uncertainty", "rows alone", partial(_rows_stand_alone, logits)
    yield "uncertainty", "draws", partial(_draws_are_allowed, logits)
    yield "uncertainty", "window", partial(_window_is_a_deque, device)
    for vocab, kind, dtype in product(vocabs, ("random", "ties", "masked", "flat", "certain"), DTYPES):
        logits = _logits(kind, 9, vocab, device).to(dtype)
        label = f"{kind} {vocab} {str(dtype).removeprefix('torch.')}"
        yield "uncertainty", label, partial(_statistics_are_right, logits)


def _statistics_are_right(logits: Tensor) -> Check:
    lists = [check_uncertainty(logits, measure(logits, k), k) for k in (1, 20)]
    return max(lists, key=lambda one: one.error if one.error == one.error else math.inf)


def _rows_stand_alone(logits: Tensor) -> Check:
    """Alone and in a batch, once and again: the same bits."""
    whole, again = measure(logits), measure(logits)
    some = [0, len(logits) // 2, len(logits) - 1]
    alone = [measure(logits[index : index + 1]) for index in some]
    differing = 0
    for name in (one.name for one in fields(whole)):
        values = getattr(whole, name)
        differing += not torch.equal(values, getattr(again, name))
        differing += sum(
            not torch.equal(values[i], getattr(one, name)[0]) for i, one in zip(some, alone, strict=True)
        )
    return Check(float(differing), 0.0, "statistics that differ")


def _draws_are_allowed(logits: Tensor) -> Check:
    """In the support, for every cut; the same seed and position draw the same token."""
    usual, worst = a_draw(len(logits), logits.device), Check(0.0, 0.0, "tokens")
    cut = {"min_p": torch.full_like(usual.min_p, 0.05)}
    untruncated = {"top_k": torch.zeros_like(usual.top_k), "top_p": torch.ones_like(usual.top_p)}
    greedy = {"temperature": torch.zeros_like(usual.temperature)}
    for draw in (usual, replace(usual, **cut), replace(usual, **untruncated), replace(usual, **greedy)):
        _, tokens, unsettled = measure_and_draw(logits, draw)
        again = measure_and_draw(logits, draw)[1]
        wrong = check_drawn(logits, tokens, unsettled, draw)
        differing = float((tokens != again)[~unsettled].sum())
        worst = max(worst, wrong, Check(differing, 0.0, "tokens drawn twice"), key=lambda one: one.error)
    return worst


def _window_is_a_deque(device: str) -> Check:
    """Three slots with windows of their own, sixty tokens, against Python."""
    windows, thresholds = (4, 7, 16), (0.3, math.nan, 0.5)
    window = ConfidenceWindow(8, 16, device)
    slots = torch.tensor([5, 0, 3], device=device)
    window.reset(slots, torch.tensor(windows, device=device), torch.tensor(thresholds, device=device))
    values = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)).to(device)
    rings: list[deque[float]] = [deque(maxlen=size) for size in windows]
    lowest, worst = [math.inf] * 3, 0.0
    for row in values:
        found = window.push(slots, row)
        for i, value in enumerate(row.tolist()):
            rings[i].append(value)
            mean = sum(rings[i]) / len(rings[i])
            full = len(rings[i]) == windows[i]
            lowest[i] = min(lowest[i], mean) if full else lowest[i]
            worst = max(worst, abs(float(found.mean[i]) - mean))
            worst = max(worst, abs(float(found.lowest[i]) - (lowest[i] if full else mean)))
            worst = max(worst, float(bool(found.below[i]) != (full and lowest[i] < thresholds[i])))
    return Check(worst, 1e-5, "mean, lowest or flag")


# -- forest attention ------------------------------------------------------------------------------------------


def _forest(device: str) -> Iterator[Named]:
    odd = forest.Model("odd", 14, 2, 64)
    trees = {
        "ragged, 7 heads to a key": forest.Tree(((3, 40), (5, 37)), shuffled=True, model=odd),
        "three levels": forest.Tree(((1, 64), (3, 48), (3, 29)), shuffled=True, model=forest.TINY),
        "nothing shared": forest.Tree(((6, 0), (1, 33)), model=odd),
        "one sequence": forest.Tree(((1, 16), (1, 1)), model=forest.TINY),
        "many siblings": forest.Tree(((1, 80), (70, 5)), model=odd),
    }
    for label, tree in trees.items():
        for dtype in DTYPES:
            yield (
                "forest_attention",
                f"{label} {str(dtype).removeprefix('torch.')}",
                partial(_attends, tree, dtype, device),
            )


def _attends(tree: forest.Tree, dtype: torch.dtype, device: str) -> Check:
    """Lengths differ from sequence to sequence where the last block leaves room."""
    batch = forest.make(tree, device)
    room = min(batch.spans[-1], forest.BLOCK) - 1
    lengths = [length - index % (room + 1) for index, length in enumerate(batch.lengths)]
    caches = [cache.to(dtype) for cache in batch.caches[:1]]
    for table, length in zip(batch.tables, lengths, strict=True):
        if over := length % forest.BLOCK:  # what is beyond a sequence's end must not count
            caches[0][table[length // forest.BLOCK], :, over:] = math.nan
    ragged = replace(batch, query=batch.query.to(dtype), caches=caches, lengths=lengths)
    [call] = forest.ours(ragged, grouped=True)
    return check_attention(call(), ragged.query, caches[0], ragged.tables, lengths, ragged.scale)


# -- scoring ---------------------------------------------------------------------------------------------------


def _scoring(device: str, quick: bool) -> Iterator[Named]:
    shapes = ((1, 48, 1001), (7, 576, 1001)) if quick else ((1, 576, 49152), (7, 576, 50257), (130, 1000, 50257))
    for tokens, width, vocab in shapes:
        for dtype in DTYPES:
            for cap in (None, 30.0):
                name = f"{tokens} x {width} x {vocab} {str(dtype).removeprefix('torch.')}"
                label = f"{name}{'' if cap is None else ', soft cap'}"
                yield "scoring", label, partial(_scores, tokens, width, vocab, dtype, cap, device)


def _scores(tokens: int, width: int, vocab: int, dtype: torch.dtype, cap: float | None, device: str) -> Check:
    generator = torch.Generator(device).manual_seed(tokens)
    hidden = torch.randn(tokens, width, device=device, generator=generator).to(dtype)
    weight = (torch.randn(vocab, width, device=device, generator=generator) * 3 * width**-0.5).to(dtype)
    targets = torch.randint(vocab, (tokens,), device=device, generator=generator)
    return check_scores(score(hidden, weight, targets, soft_cap=cap), hidden, weight, targets, cap)
