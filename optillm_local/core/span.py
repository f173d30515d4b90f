"""Where we are in a run: nested spans that carry the sinks and the budget, one context variable for all.

Concurrent runs never share a span: each task inherits the span it was started in.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from optillm_local.core.budget import Meter
from optillm_local.core.events import (
    Event,
    OptionsRead,
    SequenceCompleted,
    Sink,
    SolutionGenerated,
    SpanBegin,
    SpanEnd,
    TextScored,
    TokensDecoded,
)
from optillm_local.core.record import Usage
from optillm_local.core.solution import Solution
from optillm_local.core.usage import TokenUsage

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """What all spans of one run share: its listeners, its totals, its candidates.

    Attributes:
        sinks: take every event but `TokensDecoded`.
        watchers: take every event, and `TokensDecoded` every few tokens; they make the engine report that often.
        usage: the sum over the events so far.
        solutions: candidates in the order they were kept.
    """

    sinks: list[Sink] = field(default_factory=list)
    watchers: list[Sink] = field(default_factory=list)
    usage: TokenUsage = field(default_factory=TokenUsage)
    solutions: list[Solution] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def new_id(self, kind: str) -> str:
        """`kind-0`, `kind-1` and so on: unique in this run, and the same when the run is repeated."""
        self._counts[kind] += 1
        return f"{kind}-{self._counts[kind] - 1}"

    def emit(self, event: Event) -> None:
        """Hand an event to every listener; one that raises is dropped, the run goes on."""
        if isinstance(event, SequenceCompleted | OptionsRead | TextScored):
            self.usage += TokenUsage(**event.usage.model_dump())
        groups = [self.watchers] if isinstance(event, TokensDecoded) else [self.sinks, self.watchers]
        for group in groups:
            for sink in tuple(group):
                try:
                    sink(event)
                except Exception:
                    logger.exception("an event sink failed and is dropped: %r", sink)
                    group.remove(sink)


@dataclass(frozen=True, slots=True)
class Span:
    """A named stretch of a run. `meters` are the budgets that hold here, the outermost first."""

    run: Run
    name: str
    id: str
    meters: tuple[Meter, ...] = ()

    def check_budgets(self, now: float) -> None:
        """Raises BudgetExceeded if one of the budgets is spent."""
        for meter in self.meters:
            meter.check(now)

    def spend(self, tokens: int, now: float) -> bool:
        """Count generated tokens against every budget; true if one of them is spent."""
        for meter in self.meters:
            meter.add(tokens)
        spent = [meter.spent(now) for meter in self.meters]  # each of them is to remember it
        return any(spent)

    def within_budgets(self, max_tokens: int) -> int:
        """How long a sequence may be: `max_tokens`, or what is left."""
        left = (meter.remaining_tokens() for meter in self.meters)
        return min([max_tokens, *(tokens for tokens in left if tokens is not None)])

    def seconds_left(self, now: float) -> float:
        """Until the first deadline; infinite without one."""
        return min((meter.remaining_seconds(now) for meter in self.meters), default=math.inf)


_current: ContextVar[Span | None] = ContextVar("optillm_local_span", default=None)


def current_span() -> Span:
    """The span this task is in; outside any run, one that nobody listens to."""
    return _current.get() or Span(Run(), "", "")


@contextmanager
def open_run(
    sinks: Sequence[Sink] = (), watchers: Sequence[Sink] = (), meter: Meter | None = None
) -> Iterator[Run]:
    """Start a run: what happens inside is told to `sinks` and counted against `meter`."""
    run = Run(list(sinks), list(watchers))
    outer = _current.get()
    meters = (outer.meters if outer else ()) + ((meter,) if meter else ())
    token = _current.set(Span(run, "run", "", meters))
    try:
        yield run
    finally:
        _current.reset(token)


@contextmanager
def listening(sink: Sink) -> Iterator[None]:
    """Tell `sink` too what happens in this run meanwhile."""
    sinks = current_span().run.sinks
    sinks.append(sink)
    try:
        yield
    finally:
        if sink in sinks:  # one that fails is dropped
            sinks.remove(sink)


@contextmanager
def span(name: str, meter: Meter | None = None) -> Iterator[Span]:
    """Name a phase; tasks started inside belong to it, and count against `meter` too."""
    outer = current_span()
    inner = Span(outer.run, name, outer.run.new_id("span"), outer.meters + ((meter,) if meter else ()))
    emit(SpanBegin(span_id=inner.id, name=name, parent_id=outer.id))
    token = _current.set(inner)
    try:
        yield inner
    finally:
        _current.reset(token)
        emit(SpanEnd(span_id=inner.id, name=name))


def emit(event: Event) -> None:
    """Tell the run's listeners."""
    current_span().run.emit(event)


def keep(solution: Solution) -> Solution:
    """Put a candidate on the run's record; the best one kept is what a spent budget returns."""
    here = current_span()
    here.run.solutions.append(solution)
    score = solution.verification_score
    emit(
        SolutionGenerated(
            span_id=here.id,
            solution_id=solution.id,
            agent_id=solution.agent_id,
            answer=solution.answer,
            score=None if score != score else score,
        )
    )
    return solution


def revise(solution: Solution) -> Solution:
    """Put what is known of a kept candidate by now in its place; one that was never kept is not added."""
    kept = current_span().run.solutions
    kept[:] = [solution if one.id == solution.id else one for one in kept]
    return solution


def usage_record(usage: TokenUsage) -> Usage:
    """Token counts as events carry them."""
    values: dict[str, Any] = {k: v for k, v in usage.as_dict().items() if k != "total"}
    return Usage(**values)
