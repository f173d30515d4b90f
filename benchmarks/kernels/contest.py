"""Ours and others on the same input: checked first, then timed; a row for each, also for those that are absent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from ceilings import Ceilings
from timing import Call, l2_bytes, measure

OURS = "ours"
OURS_AND_DRAW = f"{OURS}, with a draw"
NOT_REACHED = "not reached: the time of this part was spent"


@dataclass(frozen=True, slots=True)
class Check:
    """How far a result is from float64 and how far it may be, in the unit that `of` says."""

    error: float
    limit: float
    of: str = ""

    @property
    def is_met(self) -> bool:
        """False for an error that is not a number."""
        return self.error <= self.limit


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do it.

    Attributes:
        name: as in the table; ours begins with "ours".
        build: makes a call per set of buffers; raises where it cannot run here, and the reason is told.
        check: of what a call returned; None where it returns something else (an unseeded draw).
        graph: whether its calls can be captured.
        slow: whether it is compiled when first called: those come last, so that they cost no other its place.
    """

    name: str
    build: Callable[[], Sequence[Call]]
    check: Callable[[Any], Check] | None = None
    graph: bool = True
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A shape.

    Attributes:
        label: as in the table.
        facts: the shape in numbers, for the record.
        size: bytes that must be read at least, each once.
        operations: that must be done at least (a multiplication and an addition are two).
        prepare: makes the input and the contenders.
    """

    label: str
    facts: dict[str, Any]
    size: float
    prepare: Callable[[], Sequence[Contender]]
    operations: float = 0.0


@dataclass(slots=True)
class Row:
    """What was found of a contender at a shape; `problem` says why there is no time."""

    operation: str
    case: str
    contender: str
    facts: dict[str, Any] = field(default_factory=dict)
    size: float = 0.0
    floor_us: float | None = None
    check: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None
    peak_bytes: int | None = None
    problem: str = ""

    @property
    def median(self) -> float | None:
        """Microseconds."""
        return self.timing["median"] if self.timing else None

    @property
    def share(self) -> float | None:
        """Of the floor: 1 where nothing could be faster; None on a CPU, and where all is in the L2 cache."""
        if not self.timing or not self.floor_us or self.timing["l2_warm"] or self.timing["how"] == "clock":
            return None
        return self.floor_us / float(self.timing["median"])


@dataclass(slots=True)
class Contest:
    """All shapes of an operation, most wanted first, within its time.

    Attributes:
        operation: its name.
        ceilings: of this machine.
        ends: on the monotonic clock; nothing new is begun after it.
        seconds: timed per contender and shape.
    """

    operation: str
    ceilings: Ceilings
    ends: float
    seconds: float

    def rows(self, cases: Sequence[Case]) -> Iterator[Row]:
        """What is ready at once for every shape, then, for every shape, what has to be compiled."""
        for slow in (False, True):
            for case in cases:
                yield from self._of(case, slow)

    def _of(self, case: Case, slow: bool) -> Iterator[Row]:
        if self._is_over():
            yield self._row(case, "slow ones" if slow else "all but slow ones", problem=NOT_REACHED)
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # of the shape before
        try:
            contenders = [one for one in case.prepare() if one.slow == slow]
        except Exception as error:
            yield self._row(case, "input", problem=reason(error))
            return
        for contender in contenders:
            yield self._measured(case, contender)

    def _measured(self, case: Case, contender: Contender) -> Row:
        row = self._row(case, contender.name)
        if self._is_over():
            row.problem = NOT_REACHED
            return row
        try:
            self._fill(row, contender)
        except Exception as error:  # a baseline that fails is a fact about this machine, not the end
            row.problem = reason(error)
        return row

    def _fill(self, row: Row, contender: Contender) -> None:
        calls = contender.build()
        before = _reset_peak()
        result = calls[0]()
        row.peak_bytes = _peak(before)
        if contender.check is not None:
            check = contender.check(result)
            row.check = asdict(check)
            if not check.is_met:
                row.problem = f"wrong: {check.of} is off by {check.error:.3g}, limit {check.limit:.3g}; not timed"
                return
        del result
        l2_warm = row.size * len(calls) < l2_bytes()
        row.timing = asdict(measure(calls, self.seconds, graph=contender.graph, l2_warm=l2_warm))

    def _row(self, case: Case, contender: str, problem: str = "") -> Row:
        floor = self.ceilings.floor_us(read=case.size, operations=case.operations)
        return Row(self.operation, case.label, contender, case.facts, case.size, floor, problem=problem)

    def _is_over(self) -> bool:
        return time.monotonic() > self.ends


def greatest(errors: dict[str, tuple[float, float]]) -> Check:
    """The check that is nearest to its limit, or furthest beyond it; what is not a number is beyond all."""
    name, (error, limit) = max(errors.items(), key=lambda item: _urgency(*item[1]))
    return Check(error, limit, name)


def _urgency(error: float, limit: float) -> float:
    return error / limit if error == error else float("inf")


def reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:120]


def _reset_peak() -> int:
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(before: int) -> int | None:
    """Bytes a call holds at most beside its input."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
