"""Statistics of given tokens from hidden states and the head, at the shapes of judging many candidates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from contest import OURS, Case, Contender
from float64 import check_scores
from optillm_kernels.scoring import score
from scoring_others import others
from timing import l2_bytes, rotations

# Tokens, width, vocabulary: Llama-3.1-8B, then Qwen's vocabulary with the widths of its 8B and 0.6B.
SHAPES = (
    (8192, 4096, 128256),
    (2048, 4096, 128256),
    (128, 4096, 128256),
    (8192, 4096, 151936),
    (8192, 1024, 151936),
    (128, 1024, 151936),
    (32768, 4096, 128256),
    (2048, 1024, 151936),
)
QUICK = ((5, 32, 1000), (9, 16, 777))


def cases(device: str, *, quick: bool) -> list[Case]:
    """Shapes."""
    return [_case(*shape, device) for shape in (QUICK if quick else SHAPES)]


def _case(tokens: int, width: int, vocab: int, device: str) -> Case:
    facts = {"tokens": tokens, "width": width, "vocab": vocab, "dtype": "bfloat16"}
    size, operations = 2 * (tokens * width + vocab * width), 2.0 * tokens * width * vocab
    prepare = partial(_contenders, tokens, width, vocab, device)
    return Case(f"{tokens} x {width} x {vocab}", facts, size, prepare, operations)


def _contenders(tokens: int, width: int, vocab: int, device: str) -> Sequence[Contender]:
    generator = torch.Generator(device).manual_seed(tokens)
    hidden = torch.randn(tokens, width, device=device, generator=generator).bfloat16()
    # Logits come out with a deviation of 3, like those of language models.
    weights = [
        torch.randn(vocab, width, device=device, generator=generator).mul_(3 * width**-0.5).bfloat16()
        for _ in range(rotations(2 * vocab * width, l2_bytes()))
    ]
    targets = torch.randint(vocab, (tokens,), device=device, generator=generator)
    return [
        Contender(
            OURS,
            lambda: [partial(score, hidden, weight, targets) for weight in weights],
            lambda found: check_scores(found, hidden, weights[0], targets),
        ),
        *others(hidden, weights, targets),
    ]
