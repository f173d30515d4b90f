"""Scores from chunks of the vocabulary are those of all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optillm_kernels.scoring import Shard, chunked, score
from optillm_kernels.scoring.chunked import COLUMNS, ROWS, Tiling
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = {"rows": 9, "columns": 64}
OPTIONS = [{}, {"scale": 0.25}, {"soft_cap": 5.0}, {"scale": 2.0, "soft_cap": 3.0}]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def scored(case: Any, **limits: int) -> Any:
    head = Shard(case.weight, case.bias, scale=case.scale, soft_cap=case.soft_cap)
    return chunked.score(case.hidden, head, case.targets, **limits)


@pytest.mark.parametrize("limits", [{}, SMALL], ids=["one product", "many"])
@pytest.mark.parametrize(
    "options", [{}, {"scale": 0.25}, {"soft_cap": 5.0}, {"scale": 2.0, "soft_cap": 3.0}], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_are_those_of_float64(
    case: Any, same: Any, dtype: torch.dtype, options: dict[str, float], limits: dict[str, int]
) -> None:
    made = case.of(20, 40, 331, dtype, **options)
    same(scored(made, **limits), made.exact())
    same(scored(made.biased(), **limits), made.biased().exact())


@pytest.mark.parametrize(("tokens", "vocab"), [(1, 1), (1, 7), (3, 64), (9, 55), (20, 128), (1, 1000), (64, 129)])
def test_any_shape_does(case: Any, same: Any, tokens: int, vocab: int) -> None:
    made = case.of(tokens, 24, vocab)
    same(scored(made, **SMALL), made.exact())


def test_the_public_function_takes_what_a_model_has(case: Any, same: Any) -> None:
    made = case.of(5, 32, 300, torch.bfloat16, soft_cap=10.0)
    weight = torch.nn.Parameter(made.weight)
    same(score(made.hidden, weight, made.targets.int(), soft_cap=10.0), made.exact())


def test_no_tokens_have_no_scores(case: Any) -> None:
    made = case.of(0, 8, 100)
    assert score(made.hidden, made.weight, made.targets).logprob.shape == (0,)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"soft_cap": 0.0}, {"scale": float("nan")}])
def test_what_would_turn_the_order_round_is_refused(case: Any, options: dict[str, float]) -> None:
    made = case.of(1, 8, 10)
    with pytest.raises(ValueError, match="must be positive"):
        score(made.hidden, made.weight, made.targets, **options)


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 8, 17])
def test_equal_rows_of_the_weight_are_never_ahead_of_each_other(case: Any, tokens: int) -> None:
    """With random numbers, so that a sum in another order would be off by a bit."""
    made = case.of(tokens, 577, 12)
    many = case(made.hidden, made.weight.repeat(60, 1), made.targets + 12 * 31)
    found, wanted = scored(many, rows=8, columns=64), made.exact()
    assert torch.equal(found.rank, 60 * (wanted.rank - 1) + 1)
    assert torch.equal(found.top_id, wanted.top_id)


def test_the_likeliest_token_has_rank_one_and_its_own_probability(case: Any) -> None:
    made = case.of(33, 129, 700)
    best = case(made.hidden, made.weight, made.exact().top_id)
    found = scored(best, **SMALL)
    assert (found.rank == 1).all()
    torch.testing.assert_close(found.logprob, found.top_logprob)


@pytest.mark.parametrize("target", [-1, 50, 10**6])
def test_a_token_outside_the_vocabulary_has_no_probability(case: Any, target: int) -> None:
    made = case.of(4, 16, 50)
    found = score(made.hidden, made.weight, torch.full((4,), target))
    assert (found.logprob == -torch.inf).all() and (found.rank == 51).all()
    torch.testing.assert_close(found.entropy.double(), made.exact().entropy, atol=1e-5, rtol=0)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_larger_than_a_product(case: Any, dtype: torch.dtype) -> None:
    made = case.of(40, 20, 3030, dtype)
    with Largest() as largest:
        scored(made, rows=16, columns=64)
    assert largest.elements == 64 * 20


@given(tokens=st.integers(1, 40_000), vocab=st.integers(1, 300_000))
def test_every_token_of_the_vocabulary_is_in_one_product(tokens: int, vocab: int) -> None:
    cut = Tiling.of(tokens, vocab)
    assert cut.rest + cut.rows <= cut.columns <= COLUMNS
    assert (vocab - cut.rest) % cut.columns == 0 and cut.columns % 16 == 0
    assert min(tokens, ROWS // 2) <= cut.rows <= ROWS


@pytest.mark.parametrize(("vocab", "columns"), [(128256, 4096), (151936, 4096), (49152, 4096), (256000, 4096)])
def test_usual_vocabularies_need_one_product_more_at_most(vocab: int, columns: int) -> None:
    cut = Tiling.of(8192, vocab)
    assert (cut.rows, cut.columns) == (ROWS, columns)
    assert cut.rest % 16 == 0
