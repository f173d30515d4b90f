"""The state is the same whatever it is folded and combined from."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.scoring import (
    Shard,
    State,
    combine,
    combine_all,
    find_target_logits,
    finish,
    fold,
    fold_shard,
)

VOCAB = 97


def logits_of(kind: str, tokens: int = 4) -> torch.Tensor:
    random = torch.randn(tokens, VOCAB, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    masked = random.clone()
    masked[:, ::3] = -torch.inf
    one_hot = torch.full_like(random, -torch.inf)
    one_hot[:, 50] = 3.0
    return {
        "usual": 3 * random,
        "flat": torch.full_like(random, 2.5),
        "huge": 1e4 * random.sign() + random,
        "ties": random.round(),
        "masked": masked,
        "one hot": one_hot,
        "rising": torch.arange(VOCAB, dtype=torch.float64).expand(tokens, -1) * 20.0,
    }[kind]


def folded(logits: torch.Tensor, targets: torch.Tensor, first: int, last: int) -> State:
    given = logits.gather(1, targets[:, None])[:, 0]
    empty = State.empty(len(logits), logits.device, logits.dtype)
    return fold(empty, logits[:, first:last].clone(), targets, given, first=first)


def close(one: State, other: State) -> None:
    assert one.columns == other.columns
    for field in fields(State)[:-1]:
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), atol=1e-9, rtol=1e-9)


cuts = st.lists(st.integers(0, VOCAB), max_size=6).map(lambda inner: [0, *sorted(inner), VOCAB])
kinds = st.sampled_from(["usual", "flat", "huge", "ties", "masked", "one hot", "rising"])


@settings(deadline=None)
@given(kind=kinds, cut=cuts, target=st.integers(0, VOCAB - 1), order=st.randoms(use_true_random=False))
def test_any_split_in_any_order_is_the_whole(kind: str, cut: list[int], target: int, order: Any) -> None:
    logits, targets = logits_of(kind), torch.full((4,), target)
    parts = [folded(logits, targets, *ends) for ends in itertools.pairwise(cut)]
    order.shuffle(parts)
    close(combine_all(parts), folded(logits, targets, 0, VOCAB))


@settings(deadline=None)
@given(kind=kinds, one=st.integers(1, VOCAB - 2), other=st.integers(1, VOCAB - 2))
def test_combining_is_commutative_and_associative(kind: str, one: int, other: int) -> None:
    logits, targets, (left, right) = logits_of(kind), torch.arange(4), sorted((one, other))
    a, b, c = (folded(logits, targets, *ends) for ends in ((0, left), (left, right), (right, VOCAB)))
    close(combine(a, b), combine(b, a))
    close(combine(combine(a, b), c), combine(a, combine(b, c)))


@pytest.mark.parametrize("kind", ["usual", "flat", "huge", "ties", "masked", "one hot", "rising"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_logits_have_the_statistics_of_float64(kind: str, dtype: torch.dtype) -> None:
    logits, targets = logits_of(kind), torch.tensor([0, 50, 96, 1])
    found = finish(folded(logits.to(dtype), targets, 0, VOCAB), logits.gather(1, targets[:, None])[:, 0].to(dtype))
    exact = logits.to(dtype).double()
    logprobs = exact.log_softmax(1)
    near = {"atol": 2e-6, "rtol": 2e-6}
    torch.testing.assert_close(found.logprob.double(), logprobs.gather(1, targets[:, None])[:, 0], **near)
    torch.testing.assert_close(found.entropy.double(), torch.special.entr(logprobs.exp()).sum(1), **near)
    certainty = -logprobs.mean(1) - torch.tensor(float(VOCAB)).double().log()
    torch.testing.assert_close(found.self_certainty.double(), certainty, **near)
    assert torch.equal(found.top_id, exact.argmax(1))
    assert torch.equal(found.rank, 1 + (exact > exact.gather(1, targets[:, None])).sum(1))


def sharded(made: Any, ends: list[int], **limits: int) -> Any:
    shards = [
        Shard(made.weight[a:b], None if made.bias is None else made.bias[a:b], a, made.scale, made.soft_cap)
        for a, b in itertools.pairwise(ends)
    ]
    found = [find_target_logits(made.hidden, shard, made.targets, **limits) for shard in shards]
    logits = torch.stack(found).amax(0)  # an all-reduce
    states = [fold_shard(made.hidden, shard, made.targets, logits, **limits)[0] for shard in shards]
    return finish(combine_all(states), logits, **shards[0].settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ends", [[0, 300], [0, 150, 300], [0, 75, 150, 225, 300], [0, 1, 299, 300]], ids=str)
def test_shards_give_what_the_whole_gives(case: Any, same: Any, dtype: torch.dtype, ends: list[int]) -> None:
    made = case.of(12, 24, 300, dtype, scale=0.5, soft_cap=4.0).biased()
    edges = torch.tensor([e for end in ends for e in (end - 1, end) if 0 <= e < 300])
    made = case(made.hidden, made.weight, edges.repeat(12)[:12], made.bias, 0.5, 4.0)
    same(sharded(made, ends, rows=5, columns=48), made.exact())


@settings(deadline=None)
@given(cut=st.lists(st.integers(1, 96), max_size=4, unique=True), seed=st.integers(0, 9))
def test_a_head_may_be_cut_anywhere(case: Any, same: Any, cut: list[int], seed: int) -> None:
    made = case.of(3, 8, VOCAB, seed=seed)
    same(sharded(made, [0, *sorted(cut), VOCAB], rows=2, columns=32), made.exact())


def test_ties_across_shards_are_ties(case: Any) -> None:
    made = case.of(6, 333, 10)
    many = case(made.hidden, made.weight.repeat(40, 1), made.targets + 210)
    found = sharded(many, [0, 100, 200, 300, 400], rows=6, columns=48)
    assert torch.equal(found.rank, 40 * (made.exact().rank - 1) + 1)
    assert torch.equal(found.top_id, made.exact().top_id)
