"""At the defaults, our optimizers make codelion's calls, except where the table says what they do instead and why.

Order is not compared: what codelion asks in turn, ours ask side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest


class Case(NamedTuple):
    """How one of codelion's approaches is compared.

    Attributes:
        optimizer: ours.
        script: replies by log tag that make it go its full way.
        deviations: (how many, their calls, ours in the place of each, why); None is no call. The notation is
            that of conftest.py.
    """

    optimizer: str
    script: Mapping[str, Any] = {}
    deviations: Sequence[tuple[int, str | None, str | None, str]] = ()


CASES = {
    "bon": Case(
        "best_of_n",
        deviations=[
            (
                3,
                "S U S A U, T 0.1, 256",
                "S U A U, read",
                "A rating is P(Yes), read from one prefill behind the candidate, and not a number in prose.",
            )
        ],
    ),
    "self_consistency": Case("self_consistency"),
}


@pytest.mark.parametrize("approach", CASES)
async def test_calls_are_theirs_but_for_what_the_table_gives_a_reason_for(
    approach: str,
    theirs: Callable[[str], Counter[str]],
    ours: Callable[[str, Mapping[str, Any]], Awaitable[Counter[str]]],
) -> None:
    optimizer, script, deviations = CASES[approach]
    kept, added = theirs(approach), Counter[str]()
    for count, instead_of, call, why in deviations:
        assert why
        if instead_of:
            kept[instead_of] -= count
        if call:
            added[call] += count
    assert min(kept.values()) >= 0, "a deviation is from calls that codelion does not make"
    assert await ours(optimizer, script) == kept + added


def test_the_record_adds_up(record: Mapping[str, Any]) -> None:
    for about in record.values():
        assert about["requests"] == sum(call["count"] for call in about["calls"])
        assert about["sequences"] == sum(call["count"] * (call["n"] or 1) for call in about["calls"])
        assert about["sequences"] == sum(call["sequences"] for call in about["expanded"])
