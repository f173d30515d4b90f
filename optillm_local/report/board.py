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
from optillm_local.core.mars_events import ImprovementStarted, SolutionVerified
from optillm_local.report.text import shortened

State = Literal["running", "done", "cut", "aborted"]
STATES: dict[str, State] = {"stop": "done", "length": "cut", "abort": "aborted"}
"""What a finish reason is called in a view."""

TAIL_CHARACTERS = 400
"""How much of a sequence's text is kept to show its end."""


@dataclass(slots=True)
class Agent:
    """One row of a view: the sequences of one log tag, or one sequence that has none.

    Attributes:
        number: of the row, counted from 1.
        state: "running" while one of the sequences is; then how the last of them ended.
        tokens: of all of them.
        tail: the end of what was said by the one that last spoke.
        sequences, running: how many there are, and how many of them run.
    """

    number: int
    tag: str
    state: State = "running"
    tokens: int = 0
    tail: str = ""
    sequences: int = 0
    running: int = 0

    @property
    def name(self) -> str:
        """`review agent-1 x3`; without a tag, the number."""
        name = self.tag or str(self.number)
        return f"{name} x{self.sequences}" if self.sequences > 1 else name


@dataclass(slots=True)
class _Sequence:
    """What one sequence adds to its row; texts of sequences that decode side by side are not mixed."""

    agent: Agent
    tokens: int = 0
    tail: str = ""

    def has_said(self, tokens: int, text: str) -> None:
        """It has so many tokens by now, which end in `text`."""
        self.agent.tokens += tokens - self.tokens
        self.tokens = tokens
        if text:
            self.tail = self.agent.tail = text[-TAIL_CHARACTERS:]


@dataclass(slots=True)
class Board:
    """An event sink that only counts: cheap enough to be called for every token.

    Another thread may read it meanwhile. It may find one agent a token ahead of another, which nobody sees.

    Attributes:
        agents: the rows, by log tag, or by the id of a sequence without one.
        judged: by solution, whether its verdicts verify it.
        improvement_round: the one that began last, counted from 1.
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
    judged: dict[str, bool] = field(default_factory=dict)
    improvement_round: int = 0
    _sequences: dict[str, _Sequence] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Take in one event; the most frequent kind is asked for first."""
        if isinstance(event, TokensDecoded):
            sequence = self._sequences[event.sequence_id]
            sequence.has_said(sequence.tokens + event.tokens, sequence.tail + event.text)
        elif isinstance(event, SequenceStarted):
            self._start(event)
        elif isinstance(event, SequenceCompleted):
            self._complete(event)
        else:
            self._count(event)

    def _start(self, event: SequenceStarted) -> None:
        row = event.log_tag or event.sequence_id
        agent = self.agents.get(row) or Agent(len(self.agents) + 1, event.log_tag)
        agent.state = "running"
        agent.running += 1
        agent.sequences += 1
        self._sequences[event.sequence_id] = _Sequence(agent)
        self.agents[row] = agent

    def _complete(self, event: SequenceCompleted) -> None:
        sequence = self._sequences[event.sequence_id]
        sequence.has_said(event.usage.completion, event.text)
        sequence.agent.running -= 1
        if not sequence.agent.running:
            sequence.agent.state = STATES.get(event.finish_reason, "done")

    def _count(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.optimizer, self.model, self.seed = event.optimizer, event.model, event.seed
            case SpanBegin() if event.name != self.optimizer:  # the run itself is no phase of it
                self.open_spans[event.span_id] = event.name
            case SpanEnd():
                self.open_spans.pop(event.span_id, None)
            case OptionsRead():
                self.verdicts += 1
            case SolutionGenerated():
                self.candidates += 1
            case SolutionVerified():
                self.judged[event.solution_id] = event.is_correct
            case ImprovementStarted():
                self.improvement_round = event.iteration
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
