"""What a run looks like right now, kept up to date event by event."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from optillm_local.core.events import (
    Event,
    OptionsRead,
    RunStarted,
    SequenceCompleted,
    SequenceStarted,
    SolutionGenerated,
    SpanBegin,
    SpanEnd,
    TokensDecoded,
    VotesCounted,
)
from optillm_local.report.text import shortened

State = Literal["running", "done", "cut", "aborted"]
STATES: dict[str, State] = {"stop": "done", "length": "cut", "abort": "aborted"}
"""What a finish reason is called in a view."""

TAIL_CHARACTERS = 400
"""How much of a sequence's text is kept to show its end."""


@dataclass(slots=True)
class Agent:
    """One sequence: the `number`-th of the run, counted from 1."""

    number: int
    tag: str
    state: State = "running"
    tokens: int = 0
    tail: str = ""


@dataclass(slots=True)
class Board:
    """An event sink that only counts: cheap enough to be called for every token.

    Another thread may read it meanwhile. It may find one agent a token ahead of another, which nobody sees.
    """

    optimizer: str = ""
    model: str = ""
    seed: int | None = None
    agents: dict[str, Agent] = field(default_factory=dict)
    open_spans: dict[str, str] = field(default_factory=dict)
    votes: dict[str, float] = field(default_factory=dict)
    outstanding: int = 0
    verdicts: int = 0
    candidates: int = 0

    def __call__(self, event: Event) -> None:
        """Take in one event; the most frequent kind is asked for first."""
        if isinstance(event, TokensDecoded):
            agent = self.agents[event.sequence_id]
            agent.tokens += event.tokens
            agent.tail = (agent.tail + event.text)[-TAIL_CHARACTERS:]
        elif isinstance(event, SequenceStarted):
            self.agents[event.sequence_id] = Agent(len(self.agents) + 1, event.log_tag)
        elif isinstance(event, SequenceCompleted):
            agent = self.agents[event.sequence_id]
            agent.tokens = event.usage.completion
            agent.tail = event.text[-TAIL_CHARACTERS:]
            agent.state = STATES.get(event.finish_reason, "done")
        else:
            self._count(event)

    def _count(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.optimizer, self.model, self.seed = event.optimizer, event.model, event.seed
            case SpanBegin():
                self.open_spans[event.span_id] = event.name
            case SpanEnd():
                self.open_spans.pop(event.span_id, None)
            case OptionsRead():
                self.verdicts += 1
            case SolutionGenerated():
                self.candidates += 1
            case VotesCounted():
                self.votes, self.outstanding = event.votes, event.outstanding

    @property
    def phase(self) -> str:
        """The names of the open spans, the outermost first: `explore > verify x8`."""
        counted = Counter(list(self.open_spans.values()))
        return " > ".join(name if count == 1 else f"{name} x{count}" for name, count in counted.items())


def votes_in_words(votes: dict[str, float], outstanding: int, *, width: int = 24, most: int = 5) -> str:
    """`12 (3), 7 (1), 4 outstanding`: the answers by weight."""
    ranked = sorted(votes.items(), key=lambda vote: -vote[1])
    parts = [f"{shortened(answer, width)} ({weight:.3g})" for answer, weight in ranked[:most]]
    if len(ranked) > most:
        parts.append(f"{len(ranked) - most} other answers")
    if outstanding:
        parts.append(f"{outstanding} outstanding")
    return ", ".join(parts) or "none"
