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
    RunStarted,
    SequenceCompleted,
    SequenceStarted,
    Sink,
    SolutionGenerated,
    SpanBegin,
    SpanEnd,
    TokensDecoded,
    VotesCounted,
)
from optillm_local.core.mars_events import ImprovementStarted, SolutionVerified
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


def completed(number: int, reason: str = "stop", tokens: int = 5, text: str = "the end") -> Event:
    usage = Usage(completion=tokens)
    return SequenceCompleted(
        sequence_id=f"s{number}", log_tag="", finish_reason=reason, text=text, mean_logprob=None, usage=usage
    )


def verified(solution_id: str, is_correct: bool) -> Event:
    return SolutionVerified(
        solution_id=solution_id, is_correct=is_correct, score=0.5, passes=1, failures=1, parts={}
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
    assert re.fullmatch(r" +probe  running +43  …[long ]+ and then this", row)
    assert len(row) <= 60


def test_the_finish_reason_is_the_state_and_the_engine_count_the_tokens() -> None:
    view = LiveView(console())
    for number, reason in enumerate(("stop", "length", "abort")):
        for event in (started(number), decoded(number, "one two"), completed(number, reason, tokens=9)):
            view(event)
    assert re.findall(r"(\w+) +9  the end", drawn(view)) == ["done", "cut", "aborted"]


def test_sequences_of_one_tag_share_a_row() -> None:
    board = Board()
    for number, tag in enumerate(("review agent-1", "review agent-1", "explore agent-0", "")):
        board(started(number, tag))
    for event in (decoded(0, "one"), decoded(1, "two"), decoded(0, " more"), decoded(2, "other")):
        board(event)
    review, explore, untagged = board.agents.values()
    assert [row.name for row in (review, explore, untagged)] == ["review agent-1 x2", "explore agent-0", "3"]
    assert (review.state, review.tokens, review.tail) == ("running", 3, "one more")
    board(completed(0, "stop", tokens=9))
    assert (review.state, review.running, review.tokens, review.tail) == ("running", 1, 10, "the end")
    board(completed(1, "abort", tokens=1, text=""))
    assert (review.state, review.tokens, review.tail) == ("aborted", 10, "the end")
    board(started(4, "review agent-1"))
    assert (review.state, review.name) == ("running", "review agent-1 x3")


def test_sequences_are_counted_not_rows() -> None:
    view = LiveView(console())
    for number in range(3):
        view(started(number, "review agent-1"))
    view(completed(0))
    picture = drawn(view)
    assert re.search(r"^ review agent-1 x3  running +5  the end$", picture, re.MULTILINE)
    assert "\n2 of 3 running, 5 tokens" in picture


def test_solutions_verified_and_the_round_of_improvement_are_shown() -> None:
    view = LiveView(console())
    for solution, is_correct in (("explore-0", True), ("explore-1", False), ("explore-2", True)):
        view(SolutionGenerated(solution_id=solution, agent_id="agent-0", answer="12", score=None))
        assert ("candidates" in drawn(view)) == (solution == "explore-0")
        view(verified(solution, is_correct))
    assert drawn(view).endswith("\n2 of 3 solutions verified\n")
    view(ImprovementStarted(iteration=1, solution_ids=["explore-1"]))
    assert drawn(view).endswith("\n2 of 3 solutions verified, improvement round 1\n")


def test_open_phases_are_named_and_counted() -> None:
    board = Board()
    for span in ("a", "b", "c"):
        board(SpanBegin(span_id=span, name="explore" if span == "a" else "verify", parent_id=""))
    assert board.phase == "explore > verify x2"
    for span in ("b", "c"):
        board(SpanEnd(span_id=span, name="verify"))
    assert board.phase == "explore"


def test_a_phase_is_announced_once_while_it_is_open_and_the_run_is_none() -> None:
    paper = console(terminal=False)
    view, board = PlainView(paper), Board()
    for event in (
        RunStarted(optimizer="mars", options={}, query="?", model="m", seed=1),
        *(SpanBegin(span_id=name, name=name[:-1], parent_id="") for name in ("mars1", "verify1", "verify2")),
        *(SpanEnd(span_id=name, name=name[:-1]) for name in ("verify1", "verify2")),
        SpanBegin(span_id="verify3", name="verify", parent_id=""),
    ):
        view(event)
        board(event)
    assert written(paper).splitlines() == ["mars() on m, seed 1", "phase verify", "phase verify"]
    assert board.phase == "verify"


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
        "self_consistency(n=4) on scripted, seed 1",
        "phase generate",
        "agent 1: 5 tokens, done",
        "votes: 12 (1), 3 outstanding",
        "agent 2: 6 tokens, done",
        "votes: 12 (1), 7 (1), 2 outstanding",
        "agent 3: 7 tokens, done",
        "votes: 12 (2), 7 (1), 1 outstanding",
        "1 ended early: the vote was decided",
        "agent 4: 7 tokens, aborted",
        "selected 12: 2 of 3 paths agree; 1 aborted once the vote was decided",
    ]


async def test_the_lines_of_a_run_of_mars_name_who_does_what() -> None:
    """Two agents: both solutions fail, and are rewritten by the other agent, which passes."""

    def answer(prompt: Prompt) -> str:
        return f"Final answer: {12 if str(prompt.log_tag).startswith('improve') else 7}"

    def verdict(prompt: Prompt, options: object) -> dict[str, float]:
        return {"Yes": 0.1} | {"No": 0.9} if "answer: 12" not in str(prompt.messages) else {"Yes": 1.0}

    paper, view = console(terminal=False), LiveView(console())
    client = ScriptedClient(answer, choices=verdict)
    how = {"agents": 2, "verification": "read", "min_verified_solutions": 2}
    await asolve("What?", "mars", client=client, seed=0, sinks=[PlainView(paper)], watchers=[view], **how)
    start, *lines = written(paper).splitlines()
    assert start.startswith("mars(agents=2, ")
    assert lines[:2] == ["phase exploration", "2 agents at temperatures 0.3, 1"]
    for beginning in (
        "explore agent-1: 3 tokens, done",
        "solution explore-0: not verified, confidence ",
        "improvement round 1: explore-",
        "improve agent-0: 3 tokens, done",
        "solution explore-1+1: explore-1, rewritten by agent-0",
        "solution explore-1+1: verified, confidence ",
        "selected 12: 2 of 2 verified solutions agree",
    ):
        assert any(line.startswith(beginning) for line in lines), beginning
    assert drawn(view).endswith("\n2 of 4 solutions verified, improvement round 1\n")


async def test_views_take_markup_and_control_characters_as_text() -> None:
    for view in (LiveView(console()), PlainView(console(terminal=False))):
        client = ScriptedClient(lambda prompt: "[bold]12[/nothing]\x1b[2J\x07")
        await asolve(Prompt.of("[red]?"), "single", client=client, watchers=[view])
        picture = drawn(view) if isinstance(view, LiveView) else written(view._console)
        assert "\x1b" not in picture and "\x07" not in picture
        assert "[bold]12[/nothing]" in picture or isinstance(view, PlainView)
