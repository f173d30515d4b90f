"""What happens in a run, as small records. Views, records and reports read these and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from optillm_local.core import mars_events as mars
from optillm_local.core.record import Record, Usage


class RunStarted(Record):
    """A question goes to an optimizer."""

    event: Literal["run_started"] = "run_started"
    optimizer: str
    options: dict[str, Any]
    query: str
    model: str
    seed: int | None


class RunCompleted(Record):
    """The run has an answer, and how it was chosen."""

    event: Literal["run_completed"] = "run_completed"
    answer: str
    selection: str
    budget_exhausted: bool
    usage: Usage
    engine: dict[str, float]
    duration_s: float


class RunFailed(Record):
    """The run ended without an answer."""

    event: Literal["run_failed"] = "run_failed"
    error: str
    message: str


class SpanBegin(Record):
    """A phase begins; spans nest."""

    event: Literal["span_begin"] = "span_begin"
    name: str
    parent_id: str


class SpanEnd(Record):
    """A phase is over."""

    event: Literal["span_end"] = "span_end"
    name: str


class SequenceStarted(Record):
    """A sequence was handed to the engine."""

    event: Literal["sequence_started"] = "sequence_started"
    sequence_id: str
    log_tag: str
    seed: int | None
    temperature: float


class TokensDecoded(Record):
    """Progress of one sequence. Sent only to sinks that ask for it; never recorded."""

    event: Literal["tokens_decoded"] = "tokens_decoded"
    sequence_id: str
    tokens: int
    text: str


class SequenceCompleted(Record):
    """A sequence ended, with what it says and what it cost."""

    event: Literal["sequence_completed"] = "sequence_completed"
    sequence_id: str
    log_tag: str
    finish_reason: str
    text: str
    mean_logprob: float | None
    usage: Usage


class StoppedEarly(Record):
    """Sequences are told to end before their time, and why; one that ends in the same step may still be whole."""

    event: Literal["stopped_early"] = "stopped_early"
    sequence_ids: list[str]
    reason: str


class OptionsRead(Record):
    """A decision was read from log-probabilities."""

    event: Literal["options_read"] = "options_read"
    log_tag: str
    probabilities: dict[str, float]
    label_mass: float
    usage: Usage


class TextScored(Record):
    """Given continuations were scored."""

    event: Literal["text_scored"] = "text_scored"
    log_tag: str
    totals: list[float]
    usage: Usage


class SolutionGenerated(Record):
    """An optimizer has a candidate."""

    event: Literal["solution_generated"] = "solution_generated"
    solution_id: str
    agent_id: str
    answer: str
    score: float | None


class VotesCounted(Record):
    """Where a vote stands: answers as stated and their weight."""

    event: Literal["votes_counted"] = "votes_counted"
    votes: dict[str, float]
    outstanding: int


class AnswerSelected(Record):
    """An optimizer settled on one candidate."""

    event: Literal["answer_selected"] = "answer_selected"
    solution_id: str
    answer: str
    selection: str


MarsEvent = (
    mars.ExplorationStarted
    | SolutionGenerated
    | mars.VerificationStarted
    | mars.VerdictRead
    | mars.SolutionVerified
    | mars.AggregationStarted
    | mars.SolutionsAggregated
    | mars.ImprovementStarted
    | mars.SolutionImproved
    | mars.StrategyNetworkStarted
    | mars.StrategyExtracted
    | mars.SelectionStarted
    | mars.SynthesisStarted
    | mars.AnswerSynthesized
    | AnswerSelected
    | mars.Completed
    | mars.Error
)
"""What `Mars.stream` yields."""

Event = Annotated[
    RunStarted
    | RunCompleted
    | RunFailed
    | SpanBegin
    | SpanEnd
    | SequenceStarted
    | TokensDecoded
    | SequenceCompleted
    | StoppedEarly
    | OptionsRead
    | TextScored
    | VotesCounted
    | MarsEvent,
    Field(discriminator="event"),
]

Sink = Callable[[Event], None]
"""Takes events as they happen, on the event loop: it must not block. One that raises is dropped."""

EVENT = TypeAdapter[Event](Event)
"""Reads events back: `EVENT.validate_json(line)`."""
