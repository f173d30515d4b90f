"""Choosing by scores, weights, votes and comparisons."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from random import Random
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from optillm_local.search import (
    effective_sample_size,
    is_settled,
    majority_confidence,
    pairs,
    pivots,
    softmax,
    standings,
    systematic_resample,
    top_k,
)

COUNTS = st.integers(0, 60)
SCORES = st.lists(st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0]), max_size=12)
WEIGHTS = st.lists(st.floats(0, 1e9) | st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=12)
BAD_WEIGHTS = [([], "weights must not be empty"), ([1.0, -1.0], r"weights\[1\]"), ([math.nan], r"weights\[0\]")]


@pytest.mark.parametrize(
    ("counts", "settled"),
    [
        ([], False),
        ([3], False),
        ([4], True),
        ([5, 1], False),
        ([1, 6], True),
        ([7, 2], False),
        ([8, 0, 2, 1], True),
    ],
)
def test_votes_settle_at_the_paper_s_threshold(counts: list[int], settled: bool) -> None:
    assert is_settled(counts) == settled


def test_the_majority_s_confidence_is_the_binomial_sum() -> None:
    assert majority_confidence([4]) == 1 - 1 / 32
    assert majority_confidence([3, 1]) == 1 - (1 + 5) / 32
    assert majority_confidence([10**4]) == 1.0


@given(COUNTS, COUNTS)
def test_it_is_the_mass_of_the_beta_distribution_above_one_half(first: int, second: int) -> None:
    assume(first >= second)
    steps = 4000
    grid = [(i + 0.5) / steps for i in range(steps)]
    density = [math.exp(first * math.log(x) + second * math.log1p(-x)) for x in grid]
    above = math.fsum(density[steps // 2 :]) / math.fsum(density)
    assert majority_confidence([first, second]) == pytest.approx(above, abs=1e-3)


@given(COUNTS, COUNTS)
def test_it_grows_with_the_majority_and_shrinks_with_the_second(first: int, second: int) -> None:
    first, second = max(first, second), min(first, second)
    here = majority_confidence([second, first])
    assert 0.5 <= here <= majority_confidence([first + 1, second])
    assert first == second or here >= majority_confidence([first, second + 1])
    assert majority_confidence([second, second]) == 0.5


def test_counts_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="counts must be >= 0, not -1"):
        majority_confidence([2, -1])


@given(SCORES, st.floats(0.01, 100))
def test_softmax_adds_up_to_1_and_keeps_the_order(scores: list[float], temperature: float) -> None:
    weights = softmax(scores, temperature)
    assert not scores or math.fsum(weights) == pytest.approx(1)
    pairs_of = zip(sorted(scores), sorted(weights), strict=True)
    assert [weight for _, weight in sorted(zip(scores, weights, strict=True))] == [
        weight for _, weight in pairs_of
    ]


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        ([], []),
        ([0.0, math.log(3)], [0.25, 0.75]),
        ([0.0, -math.inf, math.nan], [1, 0, 0]),
        ([-math.inf, math.nan], [0.5, 0.5]),
        ([math.inf, 0.0, math.inf], [0.5, 0, 0.5]),
        ([1e308, -1e308], [1, 0]),
    ],
)
def test_softmax_of(scores: list[float], weights: list[float]) -> None:
    assert softmax(scores) == pytest.approx(weights)


def test_a_low_temperature_leaves_the_best_and_a_high_one_makes_equal() -> None:
    assert softmax([1.0, 2.0], 1e-300) == [0, 1]
    assert softmax([1.0, 2.0], 1e300) == [0.5, 0.5]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_temperature_is_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        softmax([1.0], bad)


@given(WEIGHTS, st.integers(0, 40), st.integers())
def test_resampling_gives_each_its_share_rounded_up_or_down(weights: list[float], n: int, seed: int) -> None:
    drawn = systematic_resample(weights, n, Random(seed))
    counts, total = Counter(drawn), sum(map(Fraction, weights))
    assert drawn == sorted(drawn) and len(drawn) == n
    for index, weight in enumerate(weights):
        share = n * (Fraction(weight) / total if total else Fraction(1, len(weights)))
        assert math.floor(share) <= counts[index] <= math.ceil(share)


def test_resampling_is_unbiased() -> None:
    weights, random = [0.55, 0.3, 0.15], Random(0)
    counts = Counter(index for _ in range(4000) for index in systematic_resample(weights, 3, random))
    assert [counts[index] / 12000 for index in range(3)] == pytest.approx(weights, abs=0.01)


def test_equal_weights_are_drawn_once_each_whatever_the_seed() -> None:
    assert all(systematic_resample([0.1] * 10, 10, Random(seed)) == list(range(10)) for seed in range(50))


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
def test_bad_weights_are_named(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        systematic_resample(weights, 1, Random(0))
    with pytest.raises(ValueError, match=message):
        effective_sample_size(weights)


@given(WEIGHTS)
def test_the_effective_sample_size_is_between_one_and_all(weights: list[float]) -> None:
    size = effective_sample_size(weights)
    assert size == 0 if not any(weights) else 1 - 1e-9 <= size <= len(weights) + 1e-9


@pytest.mark.parametrize(("weights", "size"), [([5.0], 1), ([2.0, 2.0, 0.0], 2), ([0.0], 0), ([1e300, 1e300], 2)])
def test_the_effective_sample_size_of(weights: list[float], size: float) -> None:
    assert effective_sample_size(weights) == size


@given(SCORES, st.integers(0, 15))
def test_the_top_are_those_of_a_stable_sort(scores: list[float], k: int) -> None:
    assert top_k(scores, k) == sorted(range(len(scores)), key=lambda index: -scores[index])[:k]


def test_what_has_no_score_comes_last() -> None:
    assert top_k([math.nan, -math.inf, 1.0, math.nan, 1.0], 5) == [2, 4, 1, 0, 3]


@given(st.integers(0, 20), st.integers(0, 25))
def test_pivots_are_different_and_spread_evenly(n: int, k: int) -> None:
    chosen = pivots(n, k)
    gaps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert len(set(chosen)) == len(chosen) == min(n, k) and set(chosen) <= set(range(n))
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


@given(st.integers(0, 20), st.integers(0, 25))
def test_everybody_meets_every_pivot_once_and_nobody_else(n: int, k: int) -> None:
    drawn, chosen = pairs(n, k), set(pivots(n, k))
    k = len(chosen)
    assert all(i < j and (i in chosen or j in chosen) for i, j in drawn)
    assert len(set(drawn)) == len(drawn) == k * (n - k) + k * (k - 1) // 2


@pytest.mark.parametrize("k", [3, 4, 9])
def test_with_pivots_enough_it_is_everybody_against_everybody(k: int) -> None:
    assert pairs(4, k) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


@st.composite
def results(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], float]]:
    n = draw(st.integers(2, 7))
    drawn = draw(st.lists(st.sampled_from(pairs(n, n)), unique=True))
    return n, {pair: draw(st.floats(0, 1)) for pair in drawn}


@given(results())
def test_standings_do_not_depend_on_who_is_shown_first(given_results: tuple[int, dict]) -> None:
    n, told = given_results
    swapped = {(j, i): 1 - p for (i, j), p in told.items()}
    assert standings(n, swapped) == pytest.approx(standings(n, told), nan_ok=True)


@given(results())
def test_one_s_win_is_the_other_s_loss(given_results: tuple[int, dict]) -> None:
    n, told = given_results
    won, lost = standings(n, told), standings(n, {pair: 1 - p for pair, p in told.items()})
    assert [1 - share for share in lost] == pytest.approx(won, nan_ok=True)
    games = Counter(i for pair in told for i in pair)
    assert math.fsum(games[i] * won[i] for i in games) == pytest.approx(len(told))


def test_standings_are_mean_probabilities_and_what_was_not_compared_is_unknown() -> None:
    told = {(0, 1): 0.75, (1, 0): 0.5, (2, 0): 1.0, (1, 3): math.nan}
    table = standings(4, told)
    assert table == pytest.approx([fmean([0.75, 0.5, 0.0]), fmean([0.25, 0.5]), 1.0, math.nan], nan_ok=True)
    assert top_k(table, 4) == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({(0, 0): 0.5}, r"\(0, 0\) is no pair"),
        ({(0, 2): 0.5}, "no pair of two of 2"),
        ({(0, 1): 1.5}, "probability"),
    ],
)
def test_bad_results_are_named(told: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        standings(2, told)


def test_comparisons_with_pivots_find_the_best_in_fewer_than_all_pairs() -> None:
    n, k = 12, 2
    strength = [(7 * i % n) / n for i in range(n)]
    told = {(i, j): 1 / (1 + math.exp(strength[j] - strength[i])) for i, j in pairs(n, k)}
    assert top_k(standings(n, told), 1) == [strength.index(max(strength))]
    assert len(told) < n * (n - 1) // 2
