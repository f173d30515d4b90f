"""At the defaults, our optimizers make codelion's calls, except where cases.toml says what else and why.

Order is not compared: what codelion asks in turn, ours ask side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from optillm_local.registry import names


async def test_calls_are_theirs_but_for_what_a_reason_is_given_for(
    compared: Any, ours: Callable[[str, Mapping[str, str]], Awaitable[Counter[str]]]
) -> None:
    assert await ours(compared.here, compared.script) == compared.ours


def test_a_deviation_has_a_reason_and_is_from_recorded_calls(section: Any) -> None:
    assert all(one.why.endswith(".") and (one.theirs or one.ours) for one in section.deviations)
    assert section.theirs or not section.deviations
    assert section.theirs or section.others


def test_every_recorded_approach_is_compared(record: Mapping[str, Any], cases: Mapping[str, Any]) -> None:
    assert set(record) - {section["approach"] for section in cases["section"]} == set()


def test_every_optimizer_is_on_the_page(cases: Mapping[str, Any]) -> None:
    named = [*(section["here"] for section in cases["section"]), *cases["only_here"]]
    assert set(names()) - set(named) == set()
    assert len(named) == len(set(named))


def test_the_page_is_what_is_written_from_the_cases(writer: Any) -> None:
    assert writer.PAGE.read_text() == writer.page(), "run python benchmarks/conformance_page.py"


def test_the_record_adds_up(record: Mapping[str, Any]) -> None:
    for about in record.values():
        assert about["requests"] == sum(call["count"] for call in about["calls"])
        assert about["sequences"] == sum(call["count"] * (call["n"] or 1) for call in about["calls"])
        assert about["sequences"] == sum(call["sequences"] for call in about["expanded"])
