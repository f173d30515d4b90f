"""Confidence by its formulas, and what is known about it without them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local import Completion, TokenUsage
from optillm_local.confidence import measures
from optillm_local.confidence.measures import (
    GroupConfidence,
    answer_span,
    bottom_group,
    confidence_threshold,
    entropy,
    group_confidence,
    lowest_group,
    margin,
    mean_over,
    self_certainty,
    tail,
    token_confidence,
    varentropy,
    window_for,
)
from optillm_local.core.completion import OutputTextDelta

PER_TOKEN = [token_confidence, self_certainty, entropy, varentropy, margin]
OF_A_TRACE = [mean_over, lowest_group, bottom_group, tail]
DISTRIBUTIONS = st.lists(st.floats(1e-3, 1), min_size=2, max_size=8).map(lambda raw: [p / sum(raw) for p in raw])
CONFIDENCES = st.lists(st.floats(0, 50), max_size=60)


def sampled(*tokens: Sequence[float]) -> Completion:
    """A completion whose tokens have alternatives of these probabilities."""
    tops = tuple(tuple((i, math.log(p) if p else -math.inf) for i, p in enumerate(token)) for token in tokens)
    return Completion("", (), "stop", TokenUsage(), top_logprobs=tops)


@pytest.mark.parametrize("measure", PER_TOKEN)
def test_a_token_without_alternatives_is_unknown_and_a_trace_without_tokens_empty(measure: Any) -> None:
    assert measure(sampled()).shape == (0,)
    assert np.isnan(measure(sampled([], []))).tolist() == [True, True]
    assert np.isnan(measure(sampled([], [0.5, 0.5]))).tolist() == [True, False]


@pytest.mark.parametrize("measure", PER_TOKEN)
def test_neither_the_order_of_the_alternatives_matters_nor_who_reports_them(
    measure: Any,
) -> None:
    tidy, mixed = sampled([0.6, 0.3, 0.1]), sampled([0.1, 0.6, 0.3])
    delta = OutputTextDelta("", top_logprobs=mixed.top_logprobs)
    np.testing.assert_allclose(measure(delta), measure(tidy), rtol=1e-12)


@given(st.lists(DISTRIBUTIONS, max_size=5))
def test_average_trace_confidence_is_that_of_the_completion(tokens: list[list[float]]) -> None:
    trace = sampled([], *tokens)
    np.testing.assert_allclose(mean_over(token_confidence(trace)), trace.confidence)


@given(DISTRIBUTIONS)
def test_what_lists_all_the_mass_is_measured_exactly(p: list[float]) -> None:
    k, surprisal = len(p), [-math.log(x) for x in p]
    mean = math.fsum(x * s for x, s in zip(p, surprisal, strict=True))
    variance = math.fsum(x * (s - mean) ** 2 for x, s in zip(p, surprisal, strict=True))
    first, second = sorted(p)[:-3:-1]
    values = [measure(sampled(p))[0] for measure in PER_TOKEN]
    exact = [math.fsum(surprisal) / k, -math.fsum(math.log(k * x) for x in p) / k, mean, variance, first - second]
    np.testing.assert_allclose(values, exact, atol=1e-9)


@given(DISTRIBUTIONS, st.integers(1, 8))
def test_a_shorter_list_bounds_the_entropy_from_below(p: list[float], k: int) -> None:
    assert entropy(sampled(sorted(p)[-k:]))[0] <= entropy(sampled(p))[0] + 1e-9


@given(DISTRIBUTIONS)
def test_self_certainty_is_confidence_with_the_length_and_the_mass_of_the_list_taken_out(p: list[float]) -> None:
    listed = sampled([x / 2 for x in p])
    np.testing.assert_allclose(self_certainty(listed), self_certainty(sampled(p)), atol=1e-9)
    by_mass = token_confidence(listed)[0] - math.log(len(p)) + math.log(0.5)
    assert self_certainty(listed)[0] == pytest.approx(by_mass, abs=1e-9)


def test_an_even_choice_has_no_certainty_and_the_most_entropy() -> None:
    even = sampled([0.25] * 4)
    assert (self_certainty(even)[0], varentropy(even)[0], margin(even)[0]) == (0, 0, 0)
    assert token_confidence(even)[0] == entropy(even)[0] == math.log(4)


def test_an_alternative_of_probability_0_is_as_the_formulas_say() -> None:
    values = [measure(sampled([1.0, 0.0]))[0] for measure in PER_TOKEN]
    assert values == [math.inf, math.inf, 0.0, 0.0, 1.0]


def test_one_alternative_leaves_the_margin_open() -> None:
    values = [measure(sampled([0.5]))[0] for measure in (self_certainty, entropy, margin)]
    np.testing.assert_allclose(values, [0, math.log(2), math.nan])


@pytest.mark.parametrize("measure", OF_A_TRACE)
def test_a_trace_of_one_token_is_that_token_and_of_none_unknown(measure: Any) -> None:
    assert measure(np.array([0.1])) == measure(np.array([math.nan, 0.1])) == 0.1
    assert math.isnan(measure(np.array([]))) and math.isnan(measure(np.array([math.nan])))


def test_groups_are_all_windows_and_a_trace_shorter_than_one_is_one() -> None:
    trace = np.array([4.0, 2.0, 0.0, 6.0, 8.0])
    assert group_confidence(trace, 2).tolist() == [3, 1, 3, 7]
    assert group_confidence(trace, 9).tolist() == [4]
    assert (lowest_group(trace, 2), tail(trace, 2), mean_over(trace, slice(1, 4))) == (1, 7, 8 / 3)


def test_the_bottom_groups_are_a_tenth_and_one_at_least() -> None:
    assert bottom_group(np.arange(19.0)[::-1], 1) == 0
    assert bottom_group(np.arange(20.0)[::-1], 1) == 0.5


@pytest.mark.parametrize(("tokens", "window"), [(0, 1), (3, 1), (40, 10), (8191, 2047), (10**6, 2048)])
def test_the_window_is_a_quarter_of_a_short_trace(tokens: int, window: int) -> None:
    assert window_for(tokens) == window


def test_the_window_is_never_more_than_was_asked_for() -> None:
    assert window_for(10**6, window=100) == 100


@given(CONFIDENCES, st.integers(1, 9))
def test_group_confidence_online_is_the_plain_definition_at_every_token(trace: list[float], window: int) -> None:
    group = GroupConfidence(window)
    for end, value in enumerate(trace, 1):
        so_far = np.array(trace[:end])
        assert group.add([value]) == group.mean == pytest.approx(tail(so_far, window), rel=1e-12, abs=0)
        assert group.lowest == pytest.approx(lowest_group(so_far, window), rel=1e-12, abs=0)


@given(CONFIDENCES, st.integers(1, 9))
def test_group_confidence_does_not_depend_on_how_the_tokens_arrive(trace: list[float], window: int) -> None:
    at_once, one_by_one = GroupConfidence(window), GroupConfidence(window)
    at_once.add(np.array(trace))
    for value in trace:
        one_by_one.add([value, math.nan])
    assert repr((at_once.mean, at_once.lowest)) == repr((one_by_one.mean, one_by_one.lowest))


def test_a_long_trace_loses_no_precision() -> None:
    group = GroupConfidence(3)
    group.add([1e16, 1e16, 1e16] * 100)
    assert group.add([0.1, 0.1, 0.1]) == pytest.approx(0.1, rel=1e-15)


def test_an_infinite_confidence_is_forgotten_with_its_token() -> None:
    group = GroupConfidence(2)
    assert (group.add([math.inf, 1.0]), group.add([3.0]), group.lowest) == (math.inf, 2.0, 2.0)


def test_only_a_whole_group_stops_a_trace_and_it_stays_stopped() -> None:
    group = GroupConfidence(2)
    below = []
    for value in (0.0, 4.0, 1.0, 9.0):
        group.add([value])
        below.append(group.is_below(2.5))
    assert below == [False, True, True, True]
    assert not group.is_below(2.0) and not group.is_below(math.nan)


def test_a_window_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1 token, not 0"):
        GroupConfidence(0)


def test_the_threshold_is_the_percentile_above_which_the_kept_share_lies() -> None:
    warm_up = [float(i) for i in range(11)]
    assert (confidence_threshold(warm_up), confidence_threshold(warm_up, 0.9)) == (9, 1)
    assert confidence_threshold([*warm_up, math.nan, math.inf]) == 9
    assert math.isnan(confidence_threshold([])) and math.isnan(confidence_threshold([math.nan]))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, 90])
def test_a_share_is_not_a_percentage(bad: float) -> None:
    with pytest.raises(ValueError, match="keep must be a share"):
        confidence_threshold([1.0], bad)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("4 and 14, so 4.", "4", (13, 14)),
        ("It is 4. Not 14, 4.5, 1.4 or x4.", "4", (6, 7)),
        ("1,234", "234", (2, 5)),
        ("from -4 to +4", "+4", (11, 13)),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", (7, 18)),
        ("four", "4", None),
        ("four", "", None),
        ("", "4", None),
    ],
)
def test_the_answer_is_last_where_it_is_a_word(text: str, answer: str, found: tuple[int, int] | None) -> None:
    assert answer_span(text, answer) == found


def test_defaults_are_those_of_the_paper() -> None:
    assert (measures.WINDOW, measures.BOTTOM_PERCENT) == (2048, 10)
    assert (measures.KEEP_LOW, measures.KEEP_HIGH) == (0.1, 0.9)
