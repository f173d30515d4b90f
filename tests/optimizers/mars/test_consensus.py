"""When verdicts verify a solution, when they are settled, and what confidence they give."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.optimizers.mars.consensus import Confidence, Consensus

VERDICTS = st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9]), max_size=5)


@pytest.mark.parametrize(
    ("verdicts", "verified"),
    [
        ([], False),
        ([0.9], False),
        ([0.9, 0.6], True),
        ([0.9, 0.4, 0.9], False),  # not in a row
        ([0.4, 0.9, 0.9], True),
        ([0.9, 0.9, 0.4], True),  # a failure that is not confident
        ([0.9, 0.9, 0.2], False),  # a confident one un-marks it
        ([0.2, 0.9, 0.9], False),  # wherever it stands
        ([0.9, None, 0.9], False),
        ([0.9, 0.9, None], True),
        ([0.5, 0.5], False),  # as probable as not is no pass
    ],
)
def test_passes_in_a_row_verify_and_one_confident_failure_unmarks(
    verdicts: list[float | None], verified: bool
) -> None:
    assert Consensus(2, confident_failure=0.25).is_verified(verdicts) is verified


@given(st.lists(st.sampled_from([0.0, 0.3, 0.9, None]), max_size=6), st.integers(1, 3))
def test_what_is_settled_no_outstanding_verdict_changes(verdicts: list[float | None], threshold: int) -> None:
    consensus = Consensus(threshold)
    choices = [[0.0, 0.3, 0.9] if one is None else [one] for one in verdicts]
    ends = {consensus.is_verified(future) for future in itertools.product(*choices)}
    assert consensus.is_settled(verdicts) == (len(ends) == 1)


@given(VERDICTS, st.lists(st.sampled_from([None, 0, 1]), max_size=4), st.floats(-5, 0))
def test_a_confidence_is_a_share(verdicts: list[float], others: list[int | None], likelihood: float) -> None:
    assert 0 <= Confidence.of(verdicts, 0, others, likelihood).value <= 1 + 1e-12


def test_a_confidence_weighs_its_parts() -> None:
    found = Confidence.of([0.9, 0.3], 1, [1, 0, None], math.log(0.5))
    assert found.as_dict() == pytest.approx(
        {"pass_ratio": 0.5, "probability": 0.6, "agreement": 0.5, "likelihood": 0.5}
    )
    assert found.value == pytest.approx(0.35 * 0.5 + 0.35 * 0.6 + 0.2 * 0.5 + 0.1 * 0.5)


def test_parts_that_nobody_knows_are_neither_good_nor_bad() -> None:
    assert Confidence().value == pytest.approx(0.5)
    sure = Confidence.of([], None, [], math.log(0.99))
    assert sure.as_dict()["pass_ratio"] is None
    assert (
        Confidence.of([0.4, 0.4], None, [], -3.0).value < sure.value < Confidence.of([0.6], None, [], -3.0).value
    )
