"""The window on the device says what the one for running text says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.uncertainty import ConfidenceWindow, Windowed
from optillm_kernels.uncertainty import triton as kernels

from optillm_local.confidence.measures import GroupConfidence

Push = Callable[[ConfidenceWindow, torch.Tensor, torch.Tensor], Windowed]
BOTH = pytest.mark.parametrize("push", [ConfidenceWindow.push, kernels.push], ids=["torch", "triton"])
VALUES = st.floats(0, 50, width=32) | st.sampled_from([math.inf, math.nan])


def on(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@BOTH
@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=10),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.floats(0, 50, width=32) | st.just(math.nan),
)
def test_each_slot_is_a_group_of_its_own(
    push: Push, steps: list[tuple[float, float]], sizes: tuple[int, int], threshold: float
) -> None:
    window, slots = ConfidenceWindow(5, 5, "cpu"), torch.tensor([3, 1])
    window.reset(slots, torch.tensor(sizes), on(threshold, threshold))
    groups = [GroupConfidence(size) for size in sizes]
    for values in steps:
        seen = push(window, slots, on(*values))
        for group, value in zip(groups, values, strict=True):
            group.add([value])
        for found, name in ((seen.mean, "mean"), (seen.lowest, "lowest")):
            expected = on(*(getattr(group, name) for group in groups))
            torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-5, atol=1e-5)
        lows = [group.lowest for group in groups]
        if not any(math.isclose(low, threshold, rel_tol=1e-6) for low in lows):
            assert seen.below.tolist() == [group.is_below(threshold) for group in groups]


@BOTH
def test_a_new_sequence_starts_afresh(push: Push) -> None:
    window, slot = ConfidenceWindow(2, 4, "cpu"), torch.tensor([0])
    window.reset(slot, torch.tensor([2]), on(5.0))
    assert [push(window, slot, on(v)).below.item() for v in (9.0, 0.0, 9.0, 99.0)] == [False, True, True, True]
    window.reset(slot, torch.tensor([3]), on(5.0))
    seen = push(window, slot, on(1.0))
    assert (seen.mean.item(), seen.lowest.item(), seen.below.item()) == (1.0, 1.0, False)


@BOTH
def test_a_long_sequence_loses_no_precision(push: Push) -> None:
    window, slot = ConfidenceWindow(1, 8, "cpu"), torch.tensor([0])
    window.reset(slot, torch.tensor([8]), on(math.nan))
    values = torch.rand(80, generator=torch.Generator().manual_seed(0)) * 30
    for value in values:
        seen = push(window, slot, value[None])
    assert seen.mean.item() == pytest.approx(values[-8:].double().mean().item(), rel=1e-7)


@BOTH
def test_slots_of_nobody_never_stop(push: Push) -> None:
    window = ConfidenceWindow(3, 4, "cpu")
    assert not push(window, torch.tensor([2, 2, 2]), on(0.0, 1.0, math.nan)).below.any()
