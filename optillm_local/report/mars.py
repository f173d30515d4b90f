"""The events of a MARS run in words, a line for each that matters to a person."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from optillm_local.core.mars_events import (
    AggregationStarted,
    AnswerSynthesized,
    Error,
    ExplorationStarted,
    ImprovementStarted,
    SolutionImproved,
    SolutionsAggregated,
    SolutionVerified,
    StrategyExtracted,
    SynthesisStarted,
)
from optillm_local.core.record import Record
from optillm_local.report.text import counted, decimal, shortened

_MOST_NAMED = 6
"""So many temperatures or solutions are listed one by one."""


@singledispatch
def mars_line(event: Record) -> str:
    """What happened; empty for events that other lines tell already."""
    return ""


@mars_line.register
def _(event: ExplorationStarted) -> str:
    shown = f"; shown {counted(len(event.strategies), 'strategy', 'strategies')}" if event.strategies else ""
    return f"{counted(event.num_agents, 'agent')} at temperatures {_temperatures(event.temperatures)}{shown}"


@mars_line.register
def _(event: SolutionVerified) -> str:
    verdict = "verified" if event.is_correct else "not verified"
    verdicts = f"{counted(event.passes, 'pass', 'passes')}, {counted(event.failures, 'failure')}"
    return f"solution {event.solution_id}: {verdict}, confidence {decimal(event.score)} ({verdicts})"


@mars_line.register
def _(event: AggregationStarted) -> str:
    return f"{event.method} begins with {counted(event.num_solutions, 'solution')}"


@mars_line.register
def _(event: SolutionsAggregated) -> str:
    sources = counted(len(event.source_solution_ids), "solution")
    return f"{event.method} is over: {event.result_solution_id} stands for {sources}"


@mars_line.register
def _(event: ImprovementStarted) -> str:
    return f"improvement round {event.iteration}: {_names(event.solution_ids)}"


@mars_line.register
def _(event: SolutionImproved) -> str:
    return f"solution {event.solution_id}: {event.parent_id}, rewritten by {event.agent_id}"


@mars_line.register
def _(event: StrategyExtracted) -> str:
    return f"strategy from {event.solution_id}: {shortened(event.technique, 80)}"


@mars_line.register
def _(event: SynthesisStarted) -> str:
    return f"synthesis of {_names(event.source_solution_ids)}"


@mars_line.register
def _(event: AnswerSynthesized) -> str:
    return f"solution {event.solution_id}: states {shortened(event.answer, 60)}"


@mars_line.register
def _(event: Error) -> str:
    return f"failed: {shortened(event.message, 160)}"


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    return ", ".join(ids[:_MOST_NAMED]) + more


def _temperatures(values: Sequence[float]) -> str:
    if len(values) > _MOST_NAMED:
        return f"{min(values):g} to {max(values):g}"
    return ", ".join(f"{value:g}" for value in values)
