"""What else scores tokens: the bare matrix product, torch in chunks, vLLM's operations, and two losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from contest import Contender
from timing import Call
from torch import Tensor

GEMM = "matrix product alone"
"""What the bar is about: bf16 in and out, by cuBLAS, everything written."""

CHUNK = 1024
"""Rows at a time, as vLLM takes them for log-probabilities of prompts."""


def others(hidden: Tensor, weights: Sequence[Tensor], targets: Tensor) -> list[Contender]:
    """The last two make the log-probability only; vLLM's makes it, a rank and the likeliest token."""

    def each(make: Callable[[Tensor], Call]) -> list[Call]:
        return [make(weight) for weight in weights]

    return [
        Contender(GEMM, lambda: _product(hidden, weights)),
        Contender("torch in chunks", lambda: each(lambda w: partial(_in_chunks, statistics, hidden, w, targets))),
        Contender("vLLM prompt log-probabilities", lambda: each(_vllm(hidden, targets))),
        Contender("torch.compile in chunks", lambda: each(_compiled(hidden, targets)), slow=True),
        Contender("cut-cross-entropy", lambda: each(_cut(hidden, targets)), graph=False, slow=True),
        Contender("Liger", lambda: each(_liger(hidden, targets)), graph=False, slow=True),
    ]


def statistics(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """The six statistics of some rows, as one writes them."""
    x = (hidden @ weight.T).float()
    logp = torch.log_softmax(x, -1)
    own = logp.gather(-1, targets[:, None])
    top = logp.max(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return own[:, 0], entropy, -logp.mean(-1), top.values, top.indices, 1 + (logp > own).sum(-1)


def _product(hidden: Tensor, weights: Sequence[Tensor]) -> list[Call]:
    out = torch.empty(hidden.shape[0], weights[0].shape[0], dtype=hidden.dtype, device=hidden.device)
    return [partial(torch.mm, hidden, weight.T, out=out) for weight in weights]


def _in_chunks(
    of: Callable[[Tensor, Tensor, Tensor], object], hidden: Tensor, weight: Tensor, targets: Tensor
) -> list[object]:
    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return [of(rows, weight, wanted) for rows, wanted in chunks]


def _compiled(hidden: Tensor, targets: Tensor) -> Callable[[Tensor], Call]:
    _need_gpu(hidden)
    torch.compiler.reset()
    compiled = torch.compile(statistics, dynamic=False)
    return lambda weight: partial(_in_chunks, compiled, hidden, weight, targets)


def _vllm(hidden: Tensor, targets: Tensor) -> Callable[[Tensor], Call]:
    _need_gpu(hidden)
    from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores

    def some(rows: Tensor, weight: Tensor, wanted: Tensor) -> object:
        return compute_topk_scores(rows @ weight.T, 1, wanted)

    return lambda weight: partial(_in_chunks, some, hidden, weight, targets)


def _cut(hidden: Tensor, targets: Tensor) -> Callable[[Tensor], Call]:
    """The forward pass. It waits for the device, so it is timed outside a graph."""
    from cut_cross_entropy import linear_cross_entropy

    _need_gpu(hidden)
    return lambda weight: partial(linear_cross_entropy, hidden, weight, targets, reduction="none")


def _liger(hidden: Tensor, targets: Tensor) -> Callable[[Tensor], Call]:
    """The forward pass, without gradients. It waits for the device."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    _need_gpu(hidden)
    return lambda weight: partial(liger_fused_linear_cross_entropy, hidden, weight, targets, reduction="none")


def _need_gpu(tensor: Tensor) -> None:
    if not tensor.is_cuda:
        raise RuntimeError("runs on a GPU only")
