"""Views of a run, fed with the events of real (scripted) runs and with single ones."""

import io
import re
import threading
import time

import pytest
from rich.console import Console

from optillm_local import Prompt, ScriptedClient, asolve
from optillm_local.core.events import (
    Event,
    SequenceCompleted,
    SequenceStarted,
    Sink,
    SpanBegin,
    SpanEnd,
    TokensDecoded,
    VotesCounted,
)
from optillm_local.core.record import Usage
from optillm_local.report import LiveView, PlainView
from optillm_local.report.board import Agent, Board, votes_in_words
from optillm_local.report.live import visible


def console(height: int = 30, width: int = 100, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=height, color_system=None)


def drawn(view: LiveView, height: int = 30, width: int = 100) -> str:
    paper = console(height, width)
    paper.print(view.render())
    return written(paper)


def written(paper: Console) -> str:
    assert isinstance(paper.file, io.StringIO)
    return re.sub(r" +\n", "\n", paper.file.getvalue())


def started(number: int, tag: str = "") -> Event:
    return SequenceStarted(sequence_id=f"s{number}", log_tag=tag, seed=number, temperature=1.0)


def decoded(number: int, text: str) -> Event:
    return TokensDecoded(sequence_id=f"s{number}", tokens=len(text.split()), text=text)


def completed(number: int, reason: str = "stop", tokens: int = 5) -> Event:
    usage = Usage(completion=tokens)
    return SequenceCompleted(
        sequence_id=f"s{number}", log_tag="", finish_reason=reason, text="the end", mean_logprob=None, usage=usage
    )


async def watched(*, sinks: tuple[Sink, ...] = (), watchers: tuple[Sink, ...] = ()) -> None:
    """Four agents that end one after the other and say 12, 7, 12; the vote is decided before the fourth does."""

    def answer(prompt: Prompt) -> str:
        seed = prompt.sampling.seed or 0
        return "so " * seed + f"The answer is {7 if seed == 2 else 12}."

    await asolve("What?", n=4, seed=1, client=ScriptedClient(answer), sinks=sinks, watchers=watchers)


async def test_a_run_shows_agents_tokens_and_votes() -> None:
    view = LiveView(console())
    await watched(watchers=(view,))
    picture = drawn(view)
    assert picture.startswith("self_consistency on scripted, seed 1\n")
    assert re.search(r" 1  done +5  so The answer is 12\.", picture)
    assert re.search(r" 4  aborted +7  so so so so The answer is", picture)
    assert "0 of 4 running, 25 tokens, 3 candidates" in picture
    assert "votes: 12 (2), 7 (1), 1 outstanding" in picture


def test_a_running_agent_shows_the_end_of_its_text() -> None:
    view = LiveView(console())
    for event in (started(0, "probe"), decoded(0, "long " * 40), decoded(0, "and\nthen \x1b[31mthis")):
        view(event)
    [row] = [line for line in drawn(view, width=60).splitlines() if "running  " in line]
    assert re.fullmatch(r" +probe 1  running +43  …[long ]+ and then this", row)
    assert len(row) <= 60


def test_the_finish_reason_is_the_state_and_the_engine_count_the_tokens() -> None:
    view = LiveView(console())
    for number, reason in enumerate(("stop", "length", "abort")):
        for event in (started(number), decoded(number, "one two"), completed(number, reason, tokens=9)):
            view(event)
    assert re.findall(r"(\w+) +9  the end", drawn(view)) == ["done", "cut", "aborted"]


def test_open_phases_are_named_and_counted() -> None:
    board = Board()
    for span in ("a", "b", "c"):
        board(SpanBegin(span_id=span, name="explore" if span == "a" else "verify", parent_id=""))
    assert board.phase == "explore > verify x2"
    for span in ("b", "c"):
        board(SpanEnd(span_id=span, name="verify"))
    assert board.phase == "explore"


@pytest.mark.parametrize("height", [10, 24, 60])
def test_many_agents_fit_the_screen_and_the_rest_is_counted(height: int) -> None:
    view = LiveView(console(height))
    for number in range(200):
        view(started(number))
    for number in range(100):
        view(completed(number))
    view(VotesCounted(votes={"12": 100.0}, outstanding=100))
    picture = drawn(view, height)
    assert len(picture.splitlines()) < height
    shown = height - 6
    assert picture.count("running  ") == shown
    assert f"… and {200 - shown} more: {100 - shown} running, 100 finished" in picture


def test_running_agents_are_shown_before_finished_ones_and_in_order() -> None:
    agents = [Agent(number, "", "done" if number in (1, 3) else "running") for number in range(1, 7)]
    assert [agent.number for agent in visible(agents, 5)] == [1, 2, 4, 5, 6]
    assert [agent.number for agent in visible(agents, 2)] == [2, 4]


def test_votes_are_ranked_and_cut() -> None:
    votes = {"x " * 50: 0.25, "12": 3.0, **{str(n): 0.1 for n in range(6)}}
    assert votes_in_words(votes, 2, width=6).startswith("12 (3), x x x… (0.25), 0 (0.1)")
    assert votes_in_words(votes, 2).endswith("3 other answers, 2 outstanding")
    assert votes_in_words({}, 0) == "none"


def test_drawing_goes_on_while_events_arrive() -> None:
    """The refresh thread reads what the event loop writes; neither may ever fail."""
    view, paper = LiveView(console()), console()
    stop = threading.Event()
    failures: list[BaseException] = []

    def draw() -> None:
        try:
            while not stop.is_set():
                paper.print(view.render())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    for number in range(1500):
        for event in (
            started(number),
            decoded(number, "a b"),
            SpanBegin(span_id=f"{number}", name="p", parent_id=""),
        ):
            view(event)
    stop.set()
    thread.join()
    assert not failures


def test_an_event_costs_microseconds() -> None:
    view = LiveView(console())
    view(started(0))
    event = decoded(0, "some more words")
    began = time.perf_counter()
    for _ in range(2000):
        view(event)
    assert (time.perf_counter() - began) / 2000 < 50e-6  # 1 us on an idle machine


async def test_the_live_view_draws_on_a_terminal_and_leaves_its_last_state() -> None:
    paper = console()
    with LiveView(paper) as view:
        await watched(watchers=(view,))
    assert "votes: 12 (2), 7 (1), 1 outstanding" in written(paper)


async def test_plain_lines_tell_the_same_story() -> None:
    paper = console(terminal=False)
    with PlainView(paper) as view:
        await watched(sinks=(view,))
    assert written(paper).splitlines() == [
        "self_consistency(n=4, weights=uniform) on scripted, seed 1",
        "phase generate",
        "agent 1: 5 tokens, done",
        "votes: 12 (1), 3 outstanding",
        "agent 2: 6 tokens, done",
        "votes: 12 (1), 7 (1), 2 outstanding",
        "agent 3: 7 tokens, done",
        "votes: 12 (2), 7 (1), 1 outstanding",
        "agent 4: 7 tokens, aborted",
        "selected 12: 2 of 3 paths agree; 1 aborted once the vote was decided",
    ]


async def test_views_take_markup_and_control_characters_as_text() -> None:
    for view in (LiveView(console()), PlainView(console(terminal=False))):
        client = ScriptedClient(lambda prompt: "[bold]12[/nothing]\x1b[2J\x07")
        await asolve(Prompt.of("[red]?"), "single", client=client, watchers=[view])
        picture = drawn(view) if isinstance(view, LiveView) else written(view._console)
        assert "\x1b" not in picture and "\x07" not in picture
        assert "[bold]12[/nothing]" in picture or isinstance(view, PlainView)
