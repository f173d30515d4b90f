"""The table, and whether the bars are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contest import OURS, OURS_AND_DRAW, Row
from forest_others import STOCK
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from scoring_others import GEMM
from uncertainty_others import VLLM_CHAIN

UNCERTAINTY, FOREST, SCORING = "uncertainty", "forest_attention", "scoring"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure to reach, `at_least` or at most, and what was reached in the worst of `cases` cases."""

    text: str
    wanted: float
    found: float | None
    cases: int
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """Met, missed, or not measured."""
        if self.found is None:
            return "not measured"
        is_met = self.found >= self.wanted if self.at_least else self.found <= self.wanted
        return "met" if is_met else "missed"


def bars(rows: Sequence[Row], device: str) -> list[Bar]:
    """Those of the kernels' issue. What a CPU does is no measurement."""
    there = rows if device == "cuda" else []

    def shares(operation: str, is_meant: Callable[[Row], bool]) -> list[float]:
        meant = [row for row in there if row.operation == operation and row.contender == OURS and is_meant(row)]
        return [row.share for row in meant if row.share is not None]

    def ratios(operation: str, one: str, other: str, is_meant: Callable[[Row], bool]) -> list[float]:
        pairs = [(row, beside(there, row, other)) for row in there if row.operation == operation]
        wanted = [(row, than) for row, than in pairs if row.contender == one and is_meant(row)]
        return [than.median / row.median for row, than in wanted if row.median and than and than.median]

    def many_rows(row: Row) -> bool:
        return bool(row.facts["rows"] >= 256)

    def many_sequences(row: Row) -> bool:
        return bool(row.facts["sequences"] >= 128)

    def headline(row: Row) -> bool:
        facts = row.facts
        return bool(
            facts["levels"] == [[32, 2048], [16, 512]] and not facts["shuffled"] and "Llama" in facts["model"]
        )

    def bar(text: str, wanted: float, found: list[float], *, at_least: bool = True) -> Bar:
        return Bar(text, wanted, (min if at_least else max)(found, default=None), len(found), at_least)

    gemm = [1 / ratio for ratio in ratios(SCORING, OURS, GEMM, lambda row: True)]
    chain = ratios(UNCERTAINTY, OURS_AND_DRAW, VLLM_CHAIN, many_rows)
    return [
        bar("uncertainty: share of the memory floor, 256 rows or more", 0.45, shares(UNCERTAINTY, many_rows)),
        bar("uncertainty: times faster than vLLM's logprobs=20 path, 256 rows or more", 8, chain),
        bar(
            "forest attention: share of the unique-bytes floor, 128 sequences or more",
            0.8,
            shares(FOREST, many_sequences),
        ),
        bar(
            "forest attention: times faster than stock, adjacent siblings, 32x16, 2048+512",
            2,
            ratios(FOREST, OURS, STOCK, headline),
        ),
        bar("scoring: time over that of the matrix product alone", 1.15, gemm, at_least=False),
    ]


def beside(rows: Sequence[Row], row: Row, contender: str) -> Row | None:
    """What another contender did at the same shape."""
    found = [one for one in rows if (one.operation, one.case) == (row.operation, row.case)]
    return next((one for one in found if one.contender == contender), None)


def show(rows: Sequence[Row], reached: Sequence[Bar], console: Console) -> None:
    """Print a table per operation, what failed, and the bars."""
    for operation in dict.fromkeys(row.operation for row in rows if row.timing):
        console.print(_table(operation, [row for row in rows if row.operation == operation]))
    checks = [row for row in rows if row.operation == "checks"]
    failed = [row for row in checks if row.problem]
    console.print(f"checks on awkward input: {len(checks) - len(failed)} of {len(checks)} right")
    for row in failed:
        console.print(f"  {row.case}: {row.problem}", highlight=False)
    table = Table("bar", "wanted", "worst found", "cases", "verdict", box=SIMPLE)
    for bar in reached:
        sign = ">=" if bar.at_least else "<="
        found = "-" if bar.found is None else f"{bar.found:.3g}"
        table.add_row(bar.text, f"{sign} {bar.wanted}", found, str(bar.cases), bar.verdict)
    console.print(table)


def _table(operation: str, rows: Sequence[Row]) -> Table:
    columns = (
        "shape",
        "what",
        "us (20-80 %)",
        "floor us",
        "of floor",
        "ours is faster",
        "peak MB",
        "check",
        "note",
    )
    table = Table(*columns, box=SIMPLE, title=operation)
    cases = list(dict.fromkeys(row.case for row in rows))  # what is slow to compile was measured at the end
    before = ""
    for row in sorted(rows, key=lambda one: cases.index(one.case)):
        table.add_row("" if row.case == before else row.case, row.contender, *_cells(row, rows))
        before = row.case
    return table


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    check = "-" if row.check is None else f"{row.check['error']:.1g} <= {row.check['limit']:.1g}"
    if row.timing is None:
        return ["-", "-", "-", "-", "-", check, row.problem]
    timing, ours = row.timing, beside(rows, row, OURS)
    share = "-" if row.share is None else f"{row.share:.2f}"
    floor = "-" if row.share is None else f"{row.floor_us:.1f}"
    faster = "-"
    if ours is not None and ours.median and row.contender != OURS:
        faster = f"{row.median / ours.median:.2f}x" if row.median else "-"
    peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f}"
    spread = f"{timing['median']:.1f} ({timing['low']:.1f}-{timing['high']:.1f})"
    return [spread, floor, share, faster, peak, check, _note(timing)]


def _note(timing: dict[str, Any]) -> str:
    """How it was timed where that is not a graph with buffers from memory; runs that disagree."""
    notes = {"events": "not in a graph", "clock": "CPU"}
    said = [notes[timing["how"]]] if timing["how"] in notes else []
    if timing["l2_warm"]:
        said.append("L2-warm")
    if timing["spread"] > 0.03:
        said.append(f"runs differ by {timing['spread']:.0%}")
    return ", ".join(said)
