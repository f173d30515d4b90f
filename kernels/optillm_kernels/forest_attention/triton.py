"""Forest attention on a GPU: every slice of every node once, then each sequence's slices together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from optillm_kernels.forest_attention.tiles import (
    LOG2_E,
    Tile,
    combine_constants,
    segment_constants,
    tiles,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from optillm_kernels.forest_attention.plan import Plan


# Slots change with every plan: whether they are a multiple of 16 must not compile the kernels anew while serving.
@triton.jit(do_not_specialize=["partial_rows"])
def segment_kernel(
    query,  # [seqs, heads, DIM]
    cache,  # [blocks, kv_heads, PAGE, 2 DIM]
    tables,  # [seqs, blocks]
    lengths,  # [seqs]
    items,  # [capacity, FIELDS], see `work`
    count,  # [1]: items there are
    members,  # rows of the batch
    partials,  # [kv_heads, slots * GQA, DIM]
    logsumexps,  # [kv_heads, slots * GQA], base 2
    kv_heads,
    partial_rows,
    scale,  # of the scores; times log2(e) without a soft cap
    soft_cap,
    query_row,
    query_head,
    cache_block,
    cache_head,
    cache_token,
    table_row,
    GQA: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    FIELDS: tl.constexpr,
    SOFT_CAP: tl.constexpr,
):
    """Attention of an item's queries over its slice of the keys, for one KV head after another.

    As many programs as the device runs at once take the items in turn, so how many items there are is no part of
    the launch.
    """
    dims = tl.arange(0, D)
    for work in range(tl.program_id(0), tl.load(count) * kv_heads, tl.num_programs(0)):
        item = items + (work // kv_heads) * FIELDS
        head = work % kv_heads
        source = tl.load(item)
        start = tl.load(item + 1)
        stop = tl.minimum(tl.load(item + 2), tl.load(lengths + source).to(tl.int32))
        place = tl.load(item + 5) + tl.arange(0, M)  # among the item's members x heads
        live = place < tl.load(item + 4)
        slot_row = tl.load(item + 6) * GQA + place
        row = tl.load(members + tl.load(item + 3) + place // GQA, mask=live, other=0)
        q_at = row.to(tl.int64) * query_row + (head * GQA + place % GQA) * query_head
        real = live[:, None] & (dims < DIM)[None, :]
        q = tl.load(query + q_at[:, None] + dims[None, :], mask=real, other=0.0)
        table = tables + source.to(tl.int64) * table_row
        heads_cache = cache + head.to(tl.int64) * cache_head

        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        out = tl.zeros([M, D], tl.float32)
        for first in range(start, stop, N):
            token = first + tl.arange(0, N)
            # Reading the last token again is cheaper than masking every load; its score is masked.
            held = tl.minimum(token, stop - 1)
            block = tl.load(table + held // PAGE).to(tl.int64)
            at = block * cache_block + (held % PAGE) * cache_token
            here = heads_cache + at[:, None] + dims[None, :]
            if D == DIM:
                k = tl.load(here)
                v = tl.load(here + DIM)
            else:
                k = tl.load(here, mask=(dims < DIM)[None, :], other=0.0)
                v = tl.load(here + DIM, mask=(dims < DIM)[None, :], other=0.0)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            if SOFT_CAP:
                # tanh(x) = 1 - 2 / (e^2x + 1), right at both ends; 1.44 and 2.88 are log2(e) and twice that.
                turned = 1.0 - 2.0 / (tl.exp2(scores * (2.8853900817779268 / soft_cap)) + 1.0)
                scores = turned * (soft_cap * 1.4426950408889634)
            scores = tl.where((token < stop)[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, axis=1))
            kept = tl.exp2(top - new_top)
            weights = tl.exp2(scores - new_top[:, None])
            total = total * kept + tl.sum(weights, axis=1)
            out = tl.dot(weights.to(v.dtype), v, out * kept[:, None], input_precision="ieee")
            top = new_top

        # A slice without keys, of a sequence that has no suffix yet, has a log-sum-exp of -inf: it weighs nothing.
        target = head.to(tl.int64) * partial_rows + slot_row
        total = tl.where(total > 0, total, 1.0)
        tl.store(logsumexps + target, top + tl.log2(total), mask=live)
        out = out / total[:, None]
        tl.store(partials + target[:, None] * DIM + dims[None, :], out, mask=real)


@triton.jit(do_not_specialize=["partial_rows"])
def combine_kernel(
    partials,  # [kv_heads, slots * GQA, DIM]
    logsumexps,  # [kv_heads, slots * GQA], base 2
    starts,  # [seqs + 1]
    parts,  # slots, sequence after sequence
    output,  # [seqs, heads, DIM]
    partial_rows,
    output_row,
    output_head,
    GQA: tl.constexpr,
    DIM: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
):
    """One head of one sequence: its slots, C at a time, by their log-sum-exps, in float32."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    dims = tl.arange(0, D)
    stop = tl.load(starts + row + 1)
    top = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    out = tl.zeros([D], tl.float32)
    base = (head // GQA).to(tl.int64) * partial_rows + head % GQA
    for first in range(tl.load(starts + row), stop, C):
        lane = first + tl.arange(0, C)
        slot = tl.load(parts + lane, mask=lane < stop, other=0)
        at = base + slot * GQA
        lse = tl.load(logsumexps + at, mask=lane < stop, other=float("-inf"))
        held = lse > float("-inf")
        part = tl.load(
            partials + at[:, None] * DIM + dims[None, :], mask=held[:, None] & (dims < DIM)[None, :], other=0.0
        )
        new_top = tl.maximum(top, tl.max(lse, axis=0))
        base_top = tl.where(new_top > float("-inf"), new_top, 0.0)
        kept = tl.exp2(top - base_top)
        weights = tl.exp2(lse - base_top)
        total = total * kept + tl.sum(weights, axis=0)
        out = out * kept + tl.sum(weights[:, None] * part, axis=0)
        top = new_top
    out = out / tl.where(total > 0, total, 1.0)
    target = output + row.to(tl.int64) * output_row + head * output_head + dims
    tl.store(target, out.to(output.dtype.element_ty), mask=dims < DIM)


def forest_attention(
    query: Float[Tensor, "seqs heads dim"],
    kv_cache: Float[Tensor, "blocks kv_heads block_size two_dim"],
    plan: Plan,
    seq_lens: Int[Tensor, " seqs"],
    *,
    scale: float,
    soft_cap: float = 0.0,
    block_tables: Int[Tensor, "seqs blocks"] | None = None,
    out: Float[Tensor, "seqs heads dim"] | None = None,
) -> Float[Tensor, "seqs heads dim"]:
    """What `reference.forest_attention` computes, in three launches. Rows that the plan does not hold become 0.

    Raises:
        ValueError: types or shapes that the kernels do not take.
    """
    _check(query, kv_cache, plan)
    rows, heads, dim = query.shape
    kv_heads, page = kv_cache.shape[1:3]
    gqa = heads // kv_heads
    tables = plan.tables if block_tables is None else block_tables
    out = torch.empty_like(query) if out is None else out
    partial_rows = plan.capacity.slots * gqa
    partials = query.new_empty(kv_heads, partial_rows, dim, dtype=torch.float32)
    logsumexps = query.new_empty(kv_heads, partial_rows, dtype=torch.float32)
    wide, narrow = tiles(query.dtype)
    for tile, items, count in ((wide, plan.wide, plan.counts), (narrow, plan.narrow, plan.counts[1:])):
        segment_kernel[(min(_programs(query, tile), plan.capacity.items * kv_heads),)](
            query, kv_cache, tables, seq_lens, items, count, plan.members, partials, logsumexps,
            kv_heads, partial_rows, scale if soft_cap else scale * LOG2_E, soft_cap,
            *query.stride()[:2], *kv_cache.stride()[:3], tables.stride(0),
            **segment_constants(tile, gqa, dim, page, bool(soft_cap)),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    combine_kernel[(rows, heads)](
        partials, logsumexps, plan.starts, plan.parts, out, partial_rows, *out.stride()[:2],
        **combine_constants(gqa, dim), num_warps=1,
    )  # fmt: skip
    return out


def _check(query: Tensor, kv_cache: Tensor, plan: Plan) -> None:
    rows, heads, dim = query.shape
    if query.dtype != kv_cache.dtype or query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(
            f"kv_cache: {kv_cache.dtype} with a query of {query.dtype}; both must be float32, float16 or bfloat16"
        )
    if kv_cache.shape[3] != 2 * dim or kv_cache.stride(3) != 1 or query.stride(2) != 1:
        raise ValueError(
            f"kv_cache: last axis must hold K and V, 2 x {dim} numbers side by side, as the query's does"
        )
    if (heads, kv_cache.shape[1], kv_cache.shape[2]) != (plan.heads, plan.kv_heads, plan.forest.block_size):
        raise ValueError(
            f"plan: made for {plan.heads} heads, {plan.kv_heads} KV heads and blocks of {plan.forest.block_size}; "
            f"got {heads}, {kv_cache.shape[1]} and {kv_cache.shape[2]}"
        )
    if rows > plan.capacity.sequences:
        raise ValueError(f"query: {rows} rows; the plan has room for {plan.capacity.sequences}")


def _programs(query: Tensor, tile: Tile) -> int:
    """As many as run at once; a few in the interpreter, where each must take several items."""
    if not query.is_cuda:
        return 3
    return tile.resident * torch.cuda.get_device_properties(query.device).multi_processor_count
