"""Watching a run: a live view for terminals, plain lines for everything else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.events import (
    AnswerSelected,
    Event,
    RunStarted,
    SequenceCompleted,
    SequenceStarted,
    SpanBegin,
    SpanEnd,
    StoppedEarly,
    VotesCounted,
)
from optillm_local.registry import find, options_of, recorded
from optillm_local.report.board import STATES, Agent, Board, votes_in_words
from optillm_local.report.mars import mars_line
from optillm_local.report.text import shortened, tail

REFRESHES_PER_SECOND = 8
_OTHER_LINES = 6  # title, heading, the rest, two lines of footer, and the cursor's
_STYLES = {"running": "cyan", "done": "green", "cut": "yellow", "aborted": "dim"}


class LiveView:
    """Phases, agents, tokens per second and votes, redrawn in place a few times a second.

    It is a watcher: it takes every event, and only counts. Drawing happens on a thread of its own, so the
    cost per event does not depend on what is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._speed = _Speed()
        self._live = Live(
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            get_renderable=self.render,
        )

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self._board(event)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """The view as it stands, no higher than the terminal."""
        board = self._board
        agents = list(board.agents.values())  # one step for the interpreter: no event gets in between
        shown = visible(agents, max(1, self._console.height - _OTHER_LINES))
        return Group(
            _title(board),
            _table(shown),
            *_rest(agents, shown),
            _footer(board, agents, self._speed.of(sum(agent.tokens for agent in agents))),
        )


class PlainView:
    """A line for each thing that happens, for logs and pipes. A sink: it does not follow single tokens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._numbers: dict[str, int] = {}
        self._open: Counter[str] = Counter()  # spans, by name
        self._votes = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    def __call__(self, event: Event) -> None:
        """Print a line if the event is worth one."""
        if isinstance(event, SequenceStarted):
            self._numbers[event.sequence_id] = len(self._numbers) + 1
            return
        if line := self._line(event):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, event: Event) -> str:
        match event:
            case RunStarted():
                self._open[event.optimizer] += 1  # the run itself is no phase of it
                return f"{event.optimizer}({_told(event)}) on {event.model}, seed {event.seed}"
            case SpanBegin():
                self._open[event.name] += 1
                return f"phase {event.name}" if self._open[event.name] == 1 else ""
            case SpanEnd():
                self._open[event.name] -= 1
                return ""
            case SequenceCompleted():
                state = STATES.get(event.finish_reason, event.finish_reason)
                name = event.log_tag or f"agent {self._numbers[event.sequence_id]}"
                return f"{name}: {event.usage.completion} tokens, {state}"
            case StoppedEarly():
                return f"{len(event.sequence_ids)} ended early: {event.reason}"
            case VotesCounted():
                before, self._votes = self._votes, votes_in_words(event.votes, event.outstanding)
                return f"votes: {self._votes}" if self._votes != before else ""
            case AnswerSelected():
                return f"selected {shortened(event.answer, 60)}: {event.selection}"
            case _:
                return mars_line(event)


def _told(event: RunStarted) -> str:
    """The options that are not at their defaults; all of an optimizer that nobody registered."""
    defaults: dict[str, Any] = {}
    with suppress(InvalidConfiguration):
        defaults = {option.name: recorded(option.default) for option in options_of(find(event.optimizer))}
    told = {name: value for name, value in event.options.items() if defaults.get(name, ...) != value}
    return ", ".join(f"{name}={value}" for name, value in told.items())


class _Speed:
    """Tokens per second over the last two seconds of drawing."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=2 * REFRESHES_PER_SECOND)

    def of(self, total: int) -> float:
        """The speed, now that `total` tokens are decoded."""
        self._samples.append((time.monotonic(), total))
        (start, before), (now, _) = self._samples[0], self._samples[-1]
        return (total - before) / (now - start) if now > start else 0.0


def visible(agents: Sequence[Agent], room: int) -> list[Agent]:
    """The agents there is room for, in their order: the first that run, then the first that are finished."""
    running_first = sorted(agents, key=lambda agent: agent.state != "running")
    return sorted(running_first[:room], key=lambda agent: agent.number)


def _title(board: Board) -> Text:
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(board.optimizer or "starting", "bold")
    if board.model:
        title.append(f" on {board.model}, seed {board.seed}")
    if board.phase:
        title.append(f"   phase {board.phase}", "cyan")
    return title


class _Tail:
    """The end of a text, as much of it as there is room for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(tail(self._text, options.max_width), "dim", no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def _table(agents: Sequence[Agent]) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False, expand=True)
    table.add_column("agent", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=7)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True, ratio=1)
    for agent in agents:
        name = Text(agent.name, justify="left" if agent.tag else "right")
        state = Text(agent.state, _STYLES[agent.state])
        table.add_row(name, state, str(agent.tokens), _Tail(agent.tail))
    return table


def _rest(agents: Sequence[Agent], shown: Sequence[Agent]) -> list[Text]:
    """One line on the agents that there is no room for; none if all are shown."""
    hidden = len(agents) - len(shown)
    if not hidden:
        return []
    running = sum(a.state == "running" for a in agents) - sum(a.state == "running" for a in shown)
    return [Text(f"… and {hidden} more: {running} running, {hidden - running} finished", "dim")]


def _footer(board: Board, agents: Sequence[Agent], speed: float) -> Text:
    running = sum(agent.running for agent in agents)
    parts = [f"{running} of {sum(a.sequences for a in agents)} running", f"{sum(a.tokens for a in agents)} tokens"]
    if running:
        parts.append(f"{speed:.0f} tokens/s")
    if board.verdicts:
        parts.append(f"{board.verdicts} verdicts read")
    if board.candidates and not board.judged:
        parts.append(f"{board.candidates} candidates")
    footer = Text(", ".join(parts), no_wrap=True, overflow="ellipsis")
    if outcome := _outcome(board):
        footer.append(f"\n{outcome}", "bold")
    return footer


def _outcome(board: Board) -> str:
    """How far the decision is, in one line."""
    parts = []
    if judged := list(board.judged.values()):  # one step for the interpreter
        parts.append(f"{sum(judged)} of {board.candidates} solutions verified")
    if board.improvement_round:
        parts.append(f"improvement round {board.improvement_round}")
    if board.votes:
        parts.append(f"votes: {votes_in_words(board.votes, board.outstanding)}")
    return ", ".join(parts)
