"""Where we are in a run, and who hears of it."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from optillm_local import Budget, Prompt, ScriptedClient, Solution, TokenUsage
from optillm_local.core.budget import Meter
from optillm_local.core.concurrency import each
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.events import SequenceCompleted, SolutionGenerated, SpanBegin, TokensDecoded
from optillm_local.core.record import Usage
from optillm_local.core.span import current_span, emit, keep, open_run, revise, span, usage_record

QUESTION = Prompt.of("Count.", seed=0)


def talker() -> ScriptedClient:
    return ScriptedClient(lambda prompt: "one two three four five six")


def kinds(heard: list[Any]) -> list[str]:
    return [event.event for event in heard]


def raises(event: Any) -> None:
    raise OSError("disk full")


def test_spans_nest_and_name_their_parent() -> None:
    heard: list[Any] = []
    with open_run([heard.append]), span("outer") as outer, span("inner") as inner:
        assert current_span() is inner
    assert [(event.event, event.name) for event in heard] == [
        ("span_begin", "outer"),
        ("span_begin", "inner"),
        ("span_end", "inner"),
        ("span_end", "outer"),
    ]
    assert [event.span_id for event in heard] == [outer.id, inner.id, inner.id, outer.id]
    assert [event.parent_id for event in heard[:2]] == ["", outer.id]


def test_a_span_ends_when_it_fails() -> None:
    heard: list[Any] = []
    with open_run([heard.append]), pytest.raises(KeyError), span("phase"):
        raise KeyError
    assert kinds(heard) == ["span_begin", "span_end"]


async def test_a_task_belongs_to_the_span_it_was_started_in() -> None:
    async def name(_: int) -> str:
        return current_span().name

    with open_run(), span("phase"):
        assert await each(name, range(2)) == ["phase"] * 2


def test_outside_any_run_nobody_listens() -> None:
    with span("alone") as alone:
        keep(Solution("4"))
    assert alone.meters == () and current_span().run.solutions == []


async def test_concurrent_runs_share_neither_sinks_nor_budget_nor_candidates() -> None:
    client = talker()
    heard: dict[int, list[Any]] = {2: [], 4: [], 99: []}

    async def run(limit: int) -> tuple[int, int, bool]:
        meter = Meter(Budget(tokens=limit), client.clock())
        with open_run([heard[limit].append], meter=meter) as own:
            keep(Solution(str(limit)))
            await client.sample(QUESTION)
            return own.usage.completion, len(own.solutions), meter.exhausted

    assert await each(run, heard) == [(2, 1, True), (4, 1, True), (6, 1, False)]
    for events in heard.values():
        told = [kind for kind in kinds(events) if kind != "stopped_early"]
        assert told == ["solution_generated", "sequence_started", "sequence_completed"]
    assert {events[1].sequence_id for events in heard.values()} == {
        "sequence-0"
    }  # a run's ids are its own, and repeat with it


async def test_a_run_inside_a_run_is_bound_by_both_budgets() -> None:
    client = talker()
    outer, inner = Meter(Budget(tokens=3), 0.0), Meter(Budget(tokens=99), 0.0)
    with open_run(meter=outer), open_run(meter=inner):
        await client.sample(QUESTION)
        with pytest.raises(BudgetExceeded, match="3 tokens"):
            await client.sample(QUESTION)
    assert (outer.tokens, inner.tokens, outer.exhausted, inner.exhausted) == (3, 3, True, False)


@pytest.mark.parametrize("listen", [lambda *s: open_run(s), lambda *s: open_run(watchers=s)])
async def test_a_listener_that_raises_is_dropped_and_the_run_goes_on(
    listen: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    with listen(raises, heard.append), span("first"), span("second"):
        [one] = await talker().sample(QUESTION)
    assert one.finish_reason == "stop"
    assert {"span_begin", "sequence_completed", "span_end"} <= set(kinds(heard))
    assert len(caplog.records) == 1 and "OSError: disk full" in caplog.text


async def test_only_watchers_are_told_token_by_token() -> None:
    sink: list[Any] = []
    watcher: list[Any] = []
    with open_run([sink.append], [watcher.append]):
        await talker().sample(QUESTION)
    assert kinds(sink) == ["sequence_started", "sequence_completed"]
    assert kinds(watcher) == ["sequence_started", *["tokens_decoded"] * 6, "sequence_completed"]
    said = [event.text for event in watcher if isinstance(event, TokensDecoded)]
    assert "".join(said) == "one two three four five six"


async def test_a_runs_usage_is_the_sum_over_its_events() -> None:
    client, heard = talker(), []
    with open_run([heard.append]) as run:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.sample, QUESTION)
            tasks.start_soon(client.choose, QUESTION, ["Yes", "No"])
            tasks.start_soon(client.score, QUESTION, ["a", "b c"])
    told = [TokenUsage(**event.usage.model_dump()) for event in heard if hasattr(event, "usage")]
    assert len(told) == 3
    assert run.usage == sum(told, start=TokenUsage()) != TokenUsage()


def test_keeping_a_candidate_puts_it_on_the_record_and_tells_it() -> None:
    heard: list[Any] = []
    with open_run([heard.append]) as run, span("generate") as here:
        judged, unjudged = keep(Solution("4", verification_score=0.5)), keep(Solution("5"))
    assert run.solutions == [judged, unjudged]
    told = [event for event in heard if isinstance(event, SolutionGenerated)]
    assert [(e.answer, e.score, e.span_id) for e in told] == [("4", 0.5, here.id), ("5", None, here.id)]


def test_usage_goes_into_an_event_and_comes_back() -> None:
    usage = TokenUsage(5, 4, 3, 2, 1)
    assert usage_record(usage) == Usage(prompt=5, cached=4, completion=3, reasoning=2, discarded=1)
    with open_run() as run:
        emit(SpanBegin(name="no usage", parent_id=""))
        for _ in range(2):
            emit(
                SequenceCompleted(
                    sequence_id="s",
                    log_tag="",
                    finish_reason="stop",
                    text="",
                    mean_logprob=None,
                    usage=usage_record(usage),
                )
            )
    assert run.usage == usage + usage


def test_what_becomes_known_of_a_candidate_takes_its_place() -> None:
    with open_run() as run:
        first, second = keep(Solution("4")), keep(Solution("5"))
        revise(first.but(is_verified=True))
        revise(Solution("never kept"))
    assert [(one.answer, one.is_verified) for one in run.solutions] == [("4", True), ("5", False)]
    assert run.solutions[1] is second


def test_a_span_may_have_a_budget_of_its_own() -> None:
    outer, inner = Meter(Budget(tokens=9), 0.0), Meter(Budget(seconds=5.0), 0.0)
    with open_run(meter=outer), span("timed", inner) as timed:
        assert timed.meters == (outer, inner)
        with span("within"):
            assert current_span().seconds_left(2.0) == 3.0
