"""The kernels, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from optillm_kernels import scoring
from optillm_kernels.scoring import Shard, State, chunked, finish, fold
from optillm_kernels.scoring import triton as kernels

DTYPES = [torch.float16, torch.bfloat16]
OPTIONS = [{}, {"scale": 0.25}, {"soft_cap": 5.0}, {"scale": 2.0, "soft_cap": 3.0}]


@pytest.fixture
def on_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are folded as on a GPU, in blocks that a small test fills several times."""
    monkeypatch.setattr(chunked, "use_triton", lambda tensor: True)
    monkeypatch.setattr(kernels, "BLOCK", 32)


def logits_of(kind: str) -> torch.Tensor:
    random = torch.randn(5, 71, generator=torch.Generator().manual_seed(3))
    masked = random.clone()
    masked[:, :40] = -torch.inf
    return {
        "usual": 3 * random,
        "flat": torch.full_like(random, 2.5),
        "huge": 1e4 * random.sign() + random,
        "ties": random.round(),
        "masked": masked,
        "one hot": torch.full_like(random, -torch.inf).index_fill(1, torch.tensor([70]), 3.0),
        "rising": torch.arange(71.0).expand(5, -1) * 20,
    }[kind]


@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("kind", ["usual", "flat", "huge", "ties", "masked", "one hot", "rising"])
def test_the_fold_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, kind: str, block: int) -> None:
    monkeypatch.setattr(kernels, "BLOCK", block)
    logits, targets = logits_of(kind), torch.tensor([0, 31, 32, 70, -5])
    given = logits.gather(1, targets.clamp(0)[:, None])[:, 0].where(targets >= 0, -torch.inf)
    ours, theirs = State.empty(5, logits.device), State.empty(5, logits.device)
    for start, end in ((0, 64), (64, 71)):
        ours = kernels.fold(ours, logits[:, start:end], targets, given, first=start)
        theirs = fold(theirs, logits[:, start:end].clone(), targets, given, first=start)
    assert ours.columns == theirs.columns == 71
    for field in fields(State)[:-1]:
        torch.testing.assert_close(getattr(ours, field.name), getattr(theirs, field.name), atol=2e-5, rtol=2e-6)
    assert torch.equal(finish(ours, given).rank, finish(theirs, given).rank)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_chunks_folded_by_the_kernel(case: Any, same: Any, on_kernels: None, options: dict[str, float]) -> None:
    made = case.of(7, 24, 203, **options).biased()
    head = Shard(made.weight, made.bias, scale=made.scale, soft_cap=made.soft_cap)
    same(chunked.score(made.hidden, head, made.targets, rows=4, columns=80), made.exact(), 5e-6)


@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_fused_kernel(
    case: Any, same: Any, dtype: torch.dtype, options: dict[str, float], biased: bool
) -> None:
    made = case.of(5, 72, 300, dtype, **options)
    made = made.biased() if biased else made
    same(kernels.score(made.hidden, made.weight, made.targets, splits=2, **made.options), made.exact(), 5e-6)


@pytest.mark.parametrize(
    ("tokens", "vocab", "splits"),
    [(1, 130, 1), (64, 1000, 3), (65, 400, 4), (128, 129, 7), (3, 2, 5), (2, 1280, 4)],
)
def test_the_fused_kernel_takes_any_shape(case: Any, same: Any, tokens: int, vocab: int, splits: int) -> None:
    made = case.of(tokens, 40, vocab, torch.float16)
    same(kernels.score(made.hidden, made.weight, made.targets, splits=splits), made.exact(), 5e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_rows_of_the_weight_tie_in_the_fused_kernel(case: Any, dtype: torch.dtype) -> None:
    made = case.of(70, 136, 10, dtype)
    many = case(made.hidden, made.weight.repeat(30, 1), made.targets + 130)
    found = kernels.score(many.hidden, many.weight, many.targets, splits=2)
    assert torch.equal(found.rank, 30 * (made.exact().rank - 1) + 1)
    assert torch.equal(found.top_id, made.exact().top_id)


def test_a_token_outside_the_vocabulary_has_no_probability_in_the_fused_kernel(case: Any) -> None:
    made = case.of(3, 16, 50, torch.float16)
    found = kernels.score(made.hidden, made.weight, torch.tensor([-1, 50, 10**6]), splits=1)
    assert (found.logprob == -torch.inf).all() and (found.rank == 51).all()


def test_a_single_row_and_a_bias_may_lie_apart_in_memory(case: Any, same: Any) -> None:
    made = case.of(1, 16, 50, torch.float16).biased()
    column = made.hidden.T.contiguous().T  # successive numbers, and a row is as far from the next as they are
    bias = made.bias.repeat_interleave(2)[::2]
    same(kernels.score(column, made.weight, made.targets, bias=bias, splits=1), made.exact(), 5e-6)


def test_masked_tokens_have_no_weight_in_the_fused_kernel(case: Any, same: Any) -> None:
    made = case.of(4, 16, 300, torch.float16)
    bias = torch.zeros(300, dtype=torch.float16)
    bias[:200] = -torch.inf
    masked = case(made.hidden, made.weight, torch.tensor([200, 250, 299, 7]), bias)
    same(kernels.score(masked.hidden, masked.weight, masked.targets, bias=bias, splits=2), masked.exact(), 5e-6)


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine with a GPU would say of it."""
    monkeypatch.setattr(scoring, "use_triton", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=3)
    )


def test_few_tokens_go_to_the_fused_kernel(case: Any, same: Any, on_hopper: None) -> None:
    made = case.of(3, 16, 700, torch.bfloat16, soft_cap=4.0)
    found = scoring.score(made.hidden, made.weight, made.targets, soft_cap=4.0)
    same(found, made.exact(), 5e-6)
    fused = kernels.score(made.hidden, made.weight, made.targets, soft_cap=4.0, splits=3)
    assert torch.equal(found.logprob, fused.logprob)


@pytest.mark.parametrize(
    ("tokens", "width", "dtype", "covered"),
    [
        (128, 16, torch.bfloat16, True),
        (1, 8, torch.float16, True),
        (129, 16, torch.bfloat16, False),
        (0, 16, torch.bfloat16, False),
        (1, 12, torch.bfloat16, False),
        (1, 16, torch.float32, False),
    ],
)
def test_what_the_fused_kernel_does_not_cover_goes_to_chunks(
    case: Any, on_hopper: None, tokens: int, width: int, dtype: torch.dtype, covered: bool
) -> None:
    made = case.of(tokens, width, 50, dtype)
    assert kernels.covers(made.hidden, made.weight) is covered
    assert not kernels.covers(made.hidden, made.weight.T.contiguous().T)


def test_the_fused_kernel_needs_alignment_and_shared_memory(
    case: Any, on_hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case.of(3, 16, 50, torch.bfloat16)
    shifted = made.hidden.new_zeros(3 * 16 + 1)[1:].view(3, 16)
    assert not kernels.covers(shifted, made.weight)
    for capability in ((8, 0), (9, 0), (10, 3), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert kernels.covers(made.hidden, made.weight) is (capability[0] in (9, 10))
