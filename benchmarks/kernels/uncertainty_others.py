"""What else computes statistics of logits or draws from them: torch, vLLM's operations, FlashInfer's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from contest import Contender
from timing import Call
from torch import Tensor

VLLM_CHAIN = "vLLM logprobs=20, with a draw"
VLLM_LIST = "vLLM logprobs=20, list only"


def others(batches: Sequence[Tensor], draw: Any, k: int) -> list[Contender]:
    """Each with what it makes: no two make the same, so the table says what ours is compared with."""
    return [
        Contender("torch", lambda: [partial(in_torch, one, k) for one in batches]),
        Contender(VLLM_CHAIN, lambda: _vllm_chain(batches, draw, k)),
        Contender(VLLM_LIST, lambda: _vllm_list(batches, k)),
        Contender("torch.compile", lambda: _compiled(batches, k), slow=True),
        Contender("FlashInfer softmax + top_k + draw", lambda: _flashinfer(batches, draw, k), slow=True),
    ]


def in_torch(logits: Tensor, k: int) -> tuple[Tensor, ...]:
    """The same statistics and list, as one writes them."""
    logp = torch.log_softmax(logits, -1, dtype=torch.float32)
    p = logp.exp()
    entropy = -(p * logp).sum(-1)
    varentropy = (p * (logp + entropy[:, None]) ** 2).sum(-1)
    top = logp.topk(k, -1)
    return entropy, varentropy, -logp.mean(-1), top.values, top.indices, -top.values.mean(-1)


def _compiled(batches: Sequence[Tensor], k: int) -> list[Call]:
    if not batches[0].is_cuda:
        raise RuntimeError("needs a compiler for C++ on a CPU, and tells nothing there")
    torch.compiler.reset()  # after eight shapes it would quietly no longer compile
    compiled = torch.compile(in_torch, dynamic=False)
    return [partial(compiled, one, k) for one in batches]


def _vllm_list(batches: Sequence[Tensor], k: int) -> list[Call]:
    """What its sampler does for log-probabilities once a token is drawn."""
    _need_gpu(batches[0])
    from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores

    sampled = batches[0].new_zeros(batches[0].shape[0], dtype=torch.int64)
    return [partial(compute_topk_scores, one, k, sampled) for one in batches]


def _vllm_chain(batches: Sequence[Tensor], draw: Any, k: int) -> list[Call]:
    """What its V2 sampler does for seeded requests with temperature, top-k, top-p and log-probabilities."""
    _need_gpu(batches[0])
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
    from vllm.v1.worker.gpu.sample.gumbel import apply_temperature, gumbel_sample
    from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores

    rows = torch.arange(batches[0].shape[0], dtype=torch.int32, device=batches[0].device)

    def step(logits: Tensor) -> object:
        wide = torch.empty_like(logits, dtype=torch.float32).copy_(logits)
        apply_temperature(wide, rows, draw.temperature)
        cut = apply_top_k_top_p(wide, draw.top_k, draw.top_p)
        sampled = gumbel_sample(
            cut,
            rows,
            draw.temperature,
            draw.seed,
            draw.position,
            apply_temperature=False,
            is_drafting=False,
        )
        return compute_topk_scores(logits, k, sampled)

    return [partial(step, one) for one in batches]


def _flashinfer(batches: Sequence[Tensor], draw: Any, k: int) -> list[Call]:
    """The list from `top_k`; the draw from probabilities by rejection, one seed for all rows."""
    _need_gpu(batches[0])
    import flashinfer

    def step(logits: Tensor) -> object:
        probs = flashinfer.sampling.softmax(logits, draw.temperature)
        listed = flashinfer.top_k(logits, k, sorted=True)
        drawn = flashinfer.sampling.top_k_top_p_sampling_from_probs(probs, draw.top_k, draw.top_p)
        return listed, drawn

    return [partial(step, one) for one in batches]


def _need_gpu(tensor: Tensor) -> None:
    if not tensor.is_cuda:
        raise RuntimeError("runs on a GPU only")
