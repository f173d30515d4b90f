"""What happens in a run, as small records. Views, records and reports read these and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    """A record of one thing that happened: in which span, and when (Unix seconds)."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    span_id: str = ""
    timestamp: float = Field(default_factory=time.time)


class Usage(BaseModel):
    """Tokens of one call; see `core.usage.TokenUsage`."""

    model_config = ConfigDict(frozen=True)

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    discarded: int = 0


class RunStarted(_Event):
    """A question goes to an optimizer."""

    event: Literal["run_started"] = "run_started"
    optimizer: str
    options: dict[str, Any]
    query: str
    model: str
    seed: int | None


class RunCompleted(_Event):
    """The run has an answer, and how it was chosen."""

    event: Literal["run_completed"] = "run_completed"
    answer: str
    selection: str
    budget_exhausted: bool
    usage: Usage
    engine: dict[str, float]
    duration_s: float


class RunFailed(_Event):
    """The run ended without an answer."""

    event: Literal["run_failed"] = "run_failed"
    error: str
    message: str


class SpanBegin(_Event):
    """A phase begins; spans nest."""

    event: Literal["span_begin"] = "span_begin"
    name: str
    parent_id: str


class SpanEnd(_Event):
    """A phase is over."""

    event: Literal["span_end"] = "span_end"
    name: str


class SequenceStarted(_Event):
    """A sequence was handed to the engine."""

    event: Literal["sequence_started"] = "sequence_started"
    sequence_id: str
    log_tag: str
    seed: int | None
    temperature: float


class TokensDecoded(_Event):
    """Progress of one sequence. Sent only to sinks that ask for it; never recorded."""

    event: Literal["tokens_decoded"] = "tokens_decoded"
    sequence_id: str
    tokens: int
    text: str


class SequenceCompleted(_Event):
    """A sequence ended, with what it says and what it cost."""

    event: Literal["sequence_completed"] = "sequence_completed"
    sequence_id: str
    log_tag: str
    finish_reason: str
    text: str
    mean_logprob: float | None
    usage: Usage


class OptionsRead(_Event):
    """A decision was read from log-probabilities."""

    event: Literal["options_read"] = "options_read"
    log_tag: str
    probabilities: dict[str, float]
    label_mass: float
    usage: Usage


class TextScored(_Event):
    """Given continuations were scored."""

    event: Literal["text_scored"] = "text_scored"
    log_tag: str
    totals: list[float]
    usage: Usage


class SolutionGenerated(_Event):
    """An optimizer has a candidate."""

    event: Literal["solution_generated"] = "solution_generated"
    solution_id: str
    agent_id: str
    answer: str
    score: float | None


class VotesCounted(_Event):
    """Where a vote stands: answers as stated and their weight."""

    event: Literal["votes_counted"] = "votes_counted"
    votes: dict[str, float]
    outstanding: int


class AnswerSelected(_Event):
    """An optimizer settled on one candidate."""

    event: Literal["answer_selected"] = "answer_selected"
    solution_id: str
    answer: str
    selection: str


Event = Annotated[
    RunStarted
    | RunCompleted
    | RunFailed
    | SpanBegin
    | SpanEnd
    | SequenceStarted
    | TokensDecoded
    | SequenceCompleted
    | OptionsRead
    | TextScored
    | SolutionGenerated
    | VotesCounted
    | AnswerSelected,
    Field(discriminator="event"),
]

Sink = Callable[[Event], None]
"""Takes events as they happen, on the event loop: it must not block. One that raises is dropped."""

EVENT = TypeAdapter[Event](Event)
"""Reads events back: `EVENT.validate_json(line)`."""
