import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.answers import Tally, is_decided

# Quarters add up exactly, so that ties are ties.
WEIGHTS = st.integers(0, 8).map(lambda quarters: quarters / 4)
VOTES = st.lists(st.tuples(st.none() | st.integers(0, 3), WEIGHTS), max_size=6)
NEW = 99


def tally_of(votes: list[tuple[int | None, float]]) -> Tally:
    return Tally.of([choice for choice, _ in votes], [weight for _, weight in votes])


def test_totals_winner_margin_and_share() -> None:
    tally = Tally.of([0, 1, None, 1, 2], [2.0, 2.0, 9.0, 1.0, 1.0])
    assert tally.totals == {0: 2.0, 1: 3.0, 2: 1.0}
    assert (tally.winner, tally.margin, tally.share) == (1, 1.0, 0.5)


def test_the_class_that_came_first_wins_a_tie() -> None:
    assert Tally.of([1, 0, 0, 1], [1, 1, 1, 1]).winner == 1
    assert Tally.of([0, 1, 0, 1, 0, 1], [0.1, 0.3, 0.2, 0.2, 0.3, 0.1]).winner == 0


@pytest.mark.parametrize("classes", [[], [None, None]])
def test_nobody_voted(classes: list[None]) -> None:
    tally = Tally.of(classes, [1.0] * len(classes))
    assert (tally.winner, tally.margin, tally.share) == (None, 0.0, 0.0)
    assert not is_decided(tally, 1.0)
    assert is_decided(tally, 0.0)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_bad_weight_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"weights\[1\].*{bad}"):
        Tally.of([0, None], [1.0, bad])


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_a_bad_remainder_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=f"remaining_weight.*{bad}"):
        is_decided(Tally({}), bad)


def test_each_class_needs_its_weight() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Tally.of([0, 1], [1.0])


@given(VOTES)
def test_totals_add_up(votes: list[tuple[int | None, float]]) -> None:
    tally = tally_of(votes)
    assert sum(tally.totals.values()) == sum(weight for choice, weight in votes if choice is not None)
    assert 0 <= tally.share <= 1
    assert tally.margin >= 0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), max_size=8), st.randoms(use_true_random=False))
def test_totals_do_not_depend_on_the_order(votes: list[tuple[int | None, float]], random: Random) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert tally_of(shuffled).totals == tally_of(votes).totals


@given(VOTES, st.lists(WEIGHTS.filter(bool), max_size=3))
def test_decided_means_that_no_completion_changes_the_winner(
    votes: list[tuple[int | None, float]], remaining: list[float]
) -> None:
    tally = tally_of(votes)
    choices = [*tally.totals, NEW, NEW + 1, None]
    completions = itertools.product(choices, repeat=len(remaining))
    outcomes = {tally_of([*votes, *zip(completion, remaining, strict=True)]).winner for completion in completions}
    assert is_decided(tally, sum(remaining)) == (outcomes == {tally.winner})


def test_level_is_enough_against_a_later_class_only() -> None:
    assert is_decided(Tally({0: 3.0, 1: 1.0}), 2.0)
    assert not is_decided(Tally({1: 1.0, 0: 3.0}), 2.0)
    assert is_decided(Tally({0: 2.0}), 2.0)
    assert not is_decided(Tally({0: 2.0}), 2.5)
    assert not is_decided(Tally({0: 2.0}), math.inf)
