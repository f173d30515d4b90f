"""The kernels: one that folds a chunk of logits into the state, and three that score few tokens without any chunk.

Every program's result depends on its own rows alone; there are no atomics, and nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from optillm_kernels.scoring.state import NOTHING, VANISHES, Scores, State

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

BLOCK, FOLD_WARPS = 1024, 2
TILE_COLUMNS, TILE_DEPTH, TILE_STAGES = 128, 64, 4
TILE_WARPS = {64: 4, 128: 8}
"""Warps by rows of a tile: one warp group multiplies 64 rows."""

MOST_ROWS = max(TILE_WARPS)
"""Up to here reading the weight once takes longer than the product: one tile of rows, and the fused kernel."""


@triton.jit
def capped(logits, scale, cap, has_scale: tl.constexpr, has_cap: tl.constexpr):
    """scale * x, or cap * tanh(scale * x / cap); cap times 1e-7 of absolute error."""
    if has_cap:
        doubled = logits * (2.0 * scale / cap)
        tail = tl.exp(-tl.abs(doubled))
        bent = cap * ((1.0 - tail) / (1.0 + tail))
        return tl.where(doubled < 0, -bent, bent)
    elif has_scale:
        return logits * scale
    else:
        return logits


@triton.jit(do_not_specialize=["first", "seen", "targets", "target_logits"])  # they differ at every call
def fold_kernel(
    logits, targets, target_logits, peaks, totals, moments, deficits, aboves, bests,
    stride, columns, first, seen, scale, cap,
    has_scale: tl.constexpr, has_cap: tl.constexpr, ragged: tl.constexpr,
    vanishes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Adds a chunk of logits to the state of a token; one program per token."""
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * stride
    target = tl.load(targets + token) - first
    given = tl.load(target_logits + token)
    peak, total = tl.load(peaks + token), tl.load(totals + token)
    moment, deficit = tl.load(moments + token), tl.load(deficits + token)
    above, best = tl.load(aboves + token), tl.load(bests + token)
    so_far = seen.to(tl.float32)
    for start in range(0, columns, block):
        lanes = start + tl.arange(0, block)
        raw = tl.load(row + lanes, mask=lanes < columns, other=float("-inf")) if ragged else tl.load(row + lanes)
        if (target >= start) & (target < start + block):
            raw = tl.where(lanes == target, given, raw)
        above += tl.sum((raw > given).to(tl.int32), 0)
        x = capped(raw, scale, cap, has_scale, has_cap)
        if ragged:
            x = tl.where(lanes < columns, x, float("-inf"))
        top = tl.maximum(tl.max(x, 0), peak)
        if top > peak:  # seldom: a running maximum of n changes about log n times
            best = first + tl.min(tl.where(x == top, lanes, columns), 0)
        relative = x - top
        if ragged:
            deficit += tl.sum(tl.where(lanes < columns, relative, 0.0), 0)
        else:
            deficit += tl.sum(relative, 0)
        weight = tl.exp(relative)
        shift = peak - top
        factor = tl.exp(shift)
        moment = factor * (moment + shift * total) + tl.sum(weight * tl.maximum(relative, vanishes), 0)
        total = factor * total + tl.sum(weight, 0)
        deficit += shift * so_far
        so_far += tl.minimum(columns - start, block).to(tl.float32)
        peak = top
    tl.store(peaks + token, peak)
    tl.store(totals + token, total)
    tl.store(moments + token, moment)
    tl.store(deficits + token, deficit)
    tl.store(aboves + token, above)
    tl.store(bests + token, best)


@triton.jit
def product(hidden, weight, row, column, width, rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr):
    """A tile of hidden @ weight.T in float32. Rows and columns that are not there are 0."""
    total = tl.zeros((rows, columns), tl.float32)
    for start in range(0, width, depth):
        total = tl.dot(hidden.load([row, start]), weight.load([column, start]).T, total)
    return total


@triton.jit(do_not_specialize=["tokens", "targets"])
def target_kernel(
    hidden, gathered, targets, bias, out, tokens, vocab, width,
    has_bias: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """Logits of the targets: the diagonal of a tile that is summed in the order of `fused_kernel`."""
    first = tl.program_id(0) * rows
    token = first + tl.arange(0, rows)
    tile = product(hidden, gathered, first, first, width, rows, columns, depth)
    diagonal = tl.arange(0, rows)[:, None] == tl.arange(0, columns)[None, :]
    logit = tl.sum(tl.where(diagonal, tile, 0.0), 1)
    target = tl.load(targets + token, mask=token < tokens, other=-1)
    there = (target >= 0) & (target < vocab)
    if has_bias:
        logit += tl.load(bias + target, mask=there, other=0.0).to(tl.float32)
    tl.store(out + token, tl.where(there, logit, float("-inf")), mask=token < tokens)


@triton.jit(do_not_specialize=["tokens", "targets"])
def fused_kernel(
    hidden, weight, targets, target_logits, bias, floats, ints,
    tokens, vocab, width, tiles, scale, cap,
    has_bias: tl.constexpr, has_scale: tl.constexpr, has_cap: tl.constexpr,
    nothing: tl.constexpr, vanishes: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """Multiplies a tile of tokens with `tiles` tiles of the vocabulary and folds each into the state."""
    first, split, splits = tl.program_id(0) * rows, tl.program_id(1), tl.num_programs(1)
    token = first + tl.arange(0, rows)
    target = tl.load(targets + token, mask=token < tokens, other=-1).to(tl.int32)
    given = tl.load(target_logits + token, mask=token < tokens, other=0.0)
    peak = tl.full((rows,), nothing, tl.float32)
    total, moment = tl.zeros((rows,), tl.float32), tl.zeros((rows,), tl.float32)
    deficit, so_far = tl.zeros((rows,), tl.float32), tl.zeros((rows,), tl.float32)
    above, best = tl.zeros((rows,), tl.int32), tl.zeros((rows,), tl.int32)
    begin = split * tiles * columns
    for start in range(begin, tl.minimum(begin + tiles * columns, vocab), columns):
        raw = product(hidden, weight, first, start, width, rows, columns, depth)
        lanes = start + tl.arange(0, columns)
        inside = (lanes < vocab)[None, :]
        if has_bias:
            raw += tl.load(bias + lanes, mask=lanes < vocab, other=0.0).to(tl.float32)[None, :]
        raw = tl.where(lanes[None, :] == target[:, None], given[:, None], raw)
        above += tl.sum(((raw > given[:, None]) & inside).to(tl.int32), 1)
        x = tl.where(inside, capped(raw, scale, cap, has_scale, has_cap), float("-inf"))
        top = tl.maximum(tl.max(x, 1), peak)
        at = tl.min(tl.where(x == top[:, None], lanes[None, :], vocab), 1)
        best = tl.where(top > peak, at, best)
        relative = x - top[:, None]
        deficit += tl.sum(tl.where(inside, relative, 0.0), 1)
        exps = tl.exp(relative)
        shift = peak - top
        factor = tl.exp(shift)
        moment = factor * (moment + shift * total) + tl.sum(exps * tl.maximum(relative, vanishes), 1)
        total = factor * total + tl.sum(exps, 1)
        deficit += shift * so_far
        so_far += tl.minimum(vocab - start, columns).to(tl.float32)
        peak = top
    out, field, there = split * tokens + token, splits * tokens, token < tokens
    tl.store(floats + out, peak, mask=there)
    tl.store(floats + field + out, total, mask=there)
    tl.store(floats + 2 * field + out, moment, mask=there)
    tl.store(floats + 3 * field + out, deficit, mask=there)
    tl.store(ints + out, above, mask=there)
    tl.store(ints + field + out, best, mask=there)


@triton.jit(do_not_specialize=["tokens"])
def finish_kernel(
    floats, ints, target_logits, scores, ranks, tokens, vocab, splits, per_split, scale, cap,
    has_scale: tl.constexpr, has_cap: tl.constexpr, nothing: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Combines what the programs of `fused_kernel` found of a token, and makes the statistics of it."""
    token, lane = tl.program_id(0), tl.arange(0, block)
    there, at, field = lane < splits, lane * tokens + token, splits * tokens
    peak = tl.load(floats + at, mask=there, other=nothing)
    total = tl.load(floats + field + at, mask=there, other=0.0)
    moment = tl.load(floats + 2 * field + at, mask=there, other=0.0)
    deficit = tl.load(floats + 3 * field + at, mask=there, other=0.0)
    above = tl.load(ints + at, mask=there, other=0)
    best = tl.load(ints + field + at, mask=there, other=0)
    top = tl.max(peak, 0)
    shift = peak - top
    factor = tl.exp(shift)
    columns = tl.minimum(tl.maximum(vocab - lane * per_split, 0), per_split).to(tl.float32)
    size = vocab.to(tl.float32)
    mass = tl.sum(factor * total, 0)
    log_mass = tl.log(mass)
    mean = tl.sum(deficit + shift * columns, 0) / size
    given = capped(tl.load(target_logits + token), scale, cap, has_scale, has_cap)
    tl.store(scores + token, (given - top) - log_mass)
    tl.store(scores + tokens + token, top + log_mass)
    tl.store(scores + 2 * tokens + token, log_mass - tl.sum(factor * (moment + shift * total), 0) / mass)
    tl.store(scores + 3 * tokens + token, log_mass - mean - tl.log(size))
    tl.store(scores + 4 * tokens + token, -log_mass)
    tl.store(ranks + token, tl.sum(above, 0).to(tl.int64) + 1)
    tl.store(ranks + tokens + token, tl.min(tl.where(peak == top, best, vocab), 0).to(tl.int64))


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
    """`state.fold`, in place: the tensors of the given state are those of the returned one."""
    rows, columns = logits.shape
    if rows and columns:
        with torch.cuda.device_of(logits):
            fold_kernel[(rows,)](
                logits, targets, target_logits,
                state.peak, state.total, state.moment, state.deficit, state.above, state.best,
                logits.stride(0), columns, first, state.columns, **transform(scale, soft_cap),
                ragged=columns % BLOCK != 0, vanishes=VANISHES, block=BLOCK, num_warps=FOLD_WARPS,
            )  # fmt: skip
    return replace(state, columns=state.columns + columns)


def transform(scale: float, soft_cap: float | None) -> dict[str, Any]:
    """How the kernels are told of scale and soft cap; nothing is computed for what is not there."""
    cap = float(soft_cap or 1.0)
    return {"scale": float(scale), "cap": cap, "has_scale": scale != 1.0, "has_cap": soft_cap is not None}


def covers(hidden: Float[Tensor, "tokens width"], weight: Float[Tensor, "vocab width"]) -> bool:
    """Whether `score` takes these: few rows, one 16-bit type, aligned as the copies of whole tiles need it, and a
    GPU with shared memory for the tiles (Blackwell's for desktops have half of it)."""
    return (
        0 < hidden.shape[0] <= MOST_ROWS
        and weight.shape[0] > 1
        and hidden.dtype == weight.dtype
        and hidden.dtype in (torch.float16, torch.bfloat16)
        and weight.stride(1) == 1
        and hidden.data_ptr() % 16 == 0
        and weight.data_ptr() % 16 == 0
        and weight.stride(0) % 8 == 0
        and hidden.shape[1] % 8 == 0
        and torch.cuda.get_device_capability(hidden.device)[0] in (9, 10)
    )


@torch.no_grad()
def score(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " tokens"],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    bias: Float[Tensor, " vocab"] | None = None,
    splits: int | None = None,
) -> Scores:
    """Statistics of at most `MOST_ROWS` rows. Holds a state per row and split of the vocabulary, and a row of the
    weight per target; splits are as many as the GPU has multiprocessors."""
    (tokens, width), vocab = hidden.shape, weight.shape[0]
    rows = min(size for size in TILE_WARPS if tokens <= size)
    splits = splits or torch.cuda.get_device_properties(hidden.device).multi_processor_count
    tiles = triton.cdiv(triton.cdiv(vocab, TILE_COLUMNS), splits)
    splits = triton.cdiv(vocab, tiles * TILE_COLUMNS)
    device, has_bias = hidden.device, bias is not None
    bias = hidden if bias is None else bias.contiguous()
    targets = targets.contiguous()
    logits = torch.empty(tokens, device=device)
    floats = torch.empty(4, splits, tokens, device=device)
    ints = torch.empty(2, splits, tokens, device=device, dtype=torch.int32)
    scores, ranks = torch.empty(5, tokens, device=device), torch.empty(2, tokens, device=device, dtype=torch.int64)
    # A single row is contiguous whatever its stride, which the copies of tiles need to be that of a row.
    hidden = hidden.contiguous().as_strided((tokens, width), (width, 1))
    gathered = weight.index_select(0, targets.clamp(0, vocab - 1))
    tile = {"columns": TILE_COLUMNS, "depth": TILE_DEPTH, "num_stages": TILE_STAGES}
    narrow = [TensorDescriptor.from_tensor(hidden, [64, TILE_DEPTH])]
    wide = [TensorDescriptor.from_tensor(x, [TILE_COLUMNS, TILE_DEPTH]) for x in (gathered, weight)]
    target_kernel[(triton.cdiv(tokens, 64),)](
        *narrow, wide[0], targets, bias, logits, tokens, vocab, width,
        has_bias=has_bias, rows=64, num_warps=TILE_WARPS[64], **tile,
    )  # fmt: skip
    numbers = {**transform(scale, soft_cap), "nothing": NOTHING}
    fused_kernel[(1, splits)](
        TensorDescriptor.from_tensor(hidden, [rows, TILE_DEPTH]), wide[1], targets, logits, bias, floats, ints,
        tokens, vocab, width, tiles, has_bias=has_bias, rows=rows, num_warps=TILE_WARPS[rows],
        vanishes=VANISHES, **tile, **numbers,
    )  # fmt: skip
    finish_kernel[(tokens,)](
        floats, ints, logits, scores, ranks, tokens, vocab, splits, tiles * TILE_COLUMNS,
        block=triton.next_power_of_2(splits), num_warps=1, **numbers,
    )  # fmt: skip
    return Scores(*scores, *ranks)
