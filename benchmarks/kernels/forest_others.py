"""What else attends over a paged cache: vLLM's FlashAttention, alone and in two passes, and FlashInfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from contest import Check, Contender
from timing import Call
from torch import Tensor

STOCK = "FlashAttention paged (stock)"
IN_TWO = "FlashAttention two-pass + merge"
CASCADE = "FlashInfer cascade"

WORKSPACE = 512 << 20


def others(batch: Any, check: Callable[[Any], Check]) -> list[Contender]:
    """All make what ours makes. Two passes and cascades get siblings side by side, and are not charged for it."""
    return [
        Contender(STOCK, lambda: _stock(batch), check),
        Contender(IN_TWO, lambda: _two_pass(batch), lambda found: check(_placed(found, batch.order))),
        Contender("torch, dense keys and values", lambda: _dense(batch), check),
        Contender("FlashInfer decode", lambda: _flashinfer_decode(batch), check, slow=True),
        Contender(CASCADE, lambda: _cascade(batch), lambda found: check(_placed(found, batch.order)), slow=True),
    ]


def _placed(found: Tensor, order: Tensor) -> Tensor:
    """From siblings side by side to the batch's order."""
    return torch.empty_like(found).index_copy_(0, order, found)


def _flash_attention(query: Tensor) -> tuple[Callable[..., Any], int]:
    """vLLM's function and the version it takes on this GPU."""
    if not query.is_cuda:
        raise RuntimeError("runs on a GPU only")
    from vllm.vllm_flash_attn import flash_attn_varlen_func
    from vllm.vllm_flash_attn.flash_attn_interface import is_fa_version_supported

    return flash_attn_varlen_func, 3 if is_fa_version_supported(3) else 2


def _halves(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as FlashAttention takes them, without a copy: [blocks, block, kv_heads, dim]."""
    keys, values = cache.transpose(1, 2).split(cache.shape[-1] // 2, dim=-1)
    return keys, values


def _ints(values: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int32, device=like.device)


def _stock(batch: Any) -> list[Call]:
    """What vLLM runs for a decode step."""
    attend, version = _flash_attention(batch.query)
    seqs, longest = len(batch.lengths), max(batch.lengths)
    starts, used = torch.arange(seqs + 1), _ints(batch.lengths, batch.query)
    starts = _ints(starts, batch.query)

    def step(keys: Tensor, values: Tensor) -> Tensor:
        return attend(  # type: ignore[no-any-return]
            batch.query,
            keys,
            values,
            max_seqlen_q=1,
            cu_seqlens_q=starts,
            max_seqlen_k=longest,
            seqused_k=used,
            softmax_scale=batch.scale,
            causal=True,
            block_table=batch.tables,
            fa_version=version,
        )

    return [partial(step, *_halves(cache)) for cache in batch.caches]


def _two_pass(batch: Any) -> list[Call]:
    """Once per parent all above the leaves, then the leaves, merged: vLLM's former cascade, for many groups."""
    attend, version = _flash_attention(batch.query)
    from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

    query, tables = batch.query[batch.order], batch.tables[batch.order]
    seqs, parents, above = len(query), batch.groups[-2], sum(batch.spans[:-1])
    cut = above // batch.caches[0].shape[2]
    per = seqs // parents
    shared = {
        "max_seqlen_q": per,
        "cu_seqlens_q": _ints(range(0, seqs + 1, per), query),
        "max_seqlen_k": above,
        "seqused_k": _ints([above] * parents, query),
        "block_table": tables[::per, :cut].contiguous(),
        "causal": False,
    }
    own = {
        "max_seqlen_q": 1,
        "cu_seqlens_q": _ints(range(seqs + 1), query),
        "max_seqlen_k": batch.spans[-1],
        "seqused_k": _ints([batch.spans[-1]] * seqs, query),
        "block_table": tables[:, cut:].contiguous(),
        "causal": True,
    }
    common = {"softmax_scale": batch.scale, "return_softmax_lse": True, "fa_version": version}

    def step(keys: Tensor, values: Tensor) -> Tensor:
        first, first_lse = attend(query, keys, values, **shared, **common)
        second, second_lse = attend(query, keys, values, **own, **common)
        merged = torch.empty_like(query)
        merge_attn_states(merged, first, first_lse, second, second_lse)
        return merged

    return [partial(step, *_halves(cache)) for cache in batch.caches]


def _dense(batch: Any) -> list[Call]:
    """`scaled_dot_product_attention` on keys and values gathered beforehand: only the attention is timed."""
    kv_heads, dim = batch.caches[0].shape[1], batch.query.shape[-1]
    seqs, length = len(batch.lengths), batch.lengths[0]
    if batch.query.is_cuda and seqs * length * kv_heads * 4 * dim > 16 << 30:
        raise RuntimeError("a dense copy of the cache would take more than 16 GiB")
    used = batch.caches[0][batch.tables.long()].transpose(1, 2).reshape(seqs, kv_heads, -1, 2 * dim)[:, :, :length]
    keys, values = used[..., :dim].contiguous(), used[..., dim:].contiguous()
    query = batch.query[:, :, None]

    def step() -> Tensor:
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(query, keys, values, scale=batch.scale, enable_gqa=True)[:, :, 0]

    return [step]


def _paged(tables: Tensor, tokens: int, block: int, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Index pointers, indices and last page lengths of nodes [nodes, blocks] of so many tokens each."""
    nodes, count = tables.shape
    pointers = torch.arange(0, nodes * count + 1, count, dtype=torch.int32, device=device)
    last = torch.full((nodes,), (tokens - 1) % block + 1, dtype=torch.int32, device=device)
    return pointers, tables.reshape(-1).int().contiguous(), last


def _hnd(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as FlashInfer's HND layout takes them, without a copy."""
    keys, values = cache.split(cache.shape[-1] // 2, dim=-1)
    return keys, values


def _flashinfer_decode(batch: Any) -> list[Call]:
    """Planned beforehand, with tensor cores, as is right for grouped heads."""
    import flashinfer

    space = torch.empty(WORKSPACE, dtype=torch.uint8, device=batch.query.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(space, "HND", use_tensor_cores=True)
    block, kv_heads = batch.caches[0].shape[2], batch.caches[0].shape[1]
    pages = _paged(batch.tables, batch.lengths[0], block, batch.query.device)
    _, heads, dim = batch.query.shape
    kind = {"q_data_type": batch.query.dtype, "kv_data_type": batch.query.dtype, "sm_scale": batch.scale}
    wrapper.plan(*pages, heads, kv_heads, dim, block, **kind)
    return [partial(wrapper.run, batch.query, _hnd(cache)) for cache in batch.caches]


def _cascade(batch: Any) -> list[Call]:
    """One level per level of the tree, planned beforehand."""
    import flashinfer

    device, block = batch.query.device, batch.caches[0].shape[2]
    query, tables = batch.query[batch.order].contiguous(), batch.tables[batch.order]
    space = torch.empty(WORKSPACE, dtype=torch.uint8, device=device)
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(len(batch.spans), space, "HND")
    pointers, paged, start = [], [], 0
    for nodes, span in zip(batch.groups, batch.spans, strict=True):
        per, count = len(query) // nodes, -(-span // block)
        pointers.append(torch.arange(0, len(query) + 1, per, dtype=torch.int32, device=device))
        paged.append(_paged(tables[::per, start : start + count], span, block, device))
        start += count
    levels: Sequence[list[Tensor]] = [list(one) for one in zip(*paged, strict=True)]
    _, heads, dim = query.shape
    kind = {"q_data_type": query.dtype, "kv_data_type": query.dtype, "sm_scale": batch.scale}
    wrapper.plan(pointers, *levels, heads, batch.caches[0].shape[1], dim, block, **kind)
    return [partial(wrapper.run, query, _hnd(cache)) for cache in batch.caches]
