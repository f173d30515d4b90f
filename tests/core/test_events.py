"""Events are frozen, tagged, and come back from JSON as they were."""

import json
import math
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from optillm_local.core import events
from optillm_local.core import mars_events as mars
from optillm_local.core.events import EVENT
from optillm_local.core.record import Usage

USAGE = Usage(prompt=5, cached=4, completion=3, reasoning=2, discarded=1)
EVERY = [
    events.RunStarted(optimizer="single", options={"n": 3, "of": ["a"]}, query="?", model="m", seed=None),
    events.RunCompleted(
        answer="4",
        selection="first",
        budget_exhausted=False,
        usage=USAGE,
        engine={"steps": 3},
        duration_s=0.5,
    ),
    events.RunFailed(error="NoSolutions", message="none"),
    events.SpanBegin(name="generate", parent_id=""),
    events.SpanEnd(name="generate"),
    events.SequenceStarted(sequence_id="s", log_tag="", seed=7, temperature=0.5),
    events.TokensDecoded(sequence_id="s", tokens=1, text='"\n\u2028'),
    events.SequenceCompleted(
        sequence_id="s", log_tag="", finish_reason="stop", text="4", mean_logprob=-0.5, usage=USAGE
    ),
    events.StoppedEarly(sequence_ids=["s"], reason="the vote is decided"),
    events.OptionsRead(log_tag="", probabilities={"Yes": 0.75, "No": 0.25}, label_mass=0.5, usage=USAGE),
    events.TextScored(log_tag="", totals=[-1.5, -2.0], usage=USAGE),
    events.SolutionGenerated(solution_id="s", agent_id="a", answer="4", score=0.5),
    events.VotesCounted(votes={"4": 2.0}, outstanding=1),
    events.AnswerSelected(solution_id="s", answer="4", selection="2 of 3"),
    mars.ExplorationStarted(num_agents=2, temperatures=[0.3, 1.0], strategies=["1"]),
    mars.VerificationStarted(solution_id="s", verifiers=["agent-1"]),
    mars.VerdictRead(solution_id="s", agent_id="agent-1", probability=0.7, label_mass=0.9, feedback="Fine."),
    mars.SolutionVerified(
        solution_id="s",
        is_correct=True,
        score=0.8,
        passes=2,
        failures=0,
        parts={"probability": 0.7, "likelihood": None},
    ),
    mars.AggregationStarted(method="rsa", num_solutions=3),
    mars.SolutionsAggregated(result_solution_id="r", source_solution_ids=["s"], method="rsa"),
    mars.ImprovementStarted(iteration=1, solution_ids=["s"]),
    mars.SolutionImproved(solution_id="s.1", parent_id="s", agent_id="agent-1"),
    mars.StrategyNetworkStarted(solution_id="s"),
    mars.StrategyExtracted(strategy_id="1", technique="factoring", solution_id="s"),
    mars.SelectionStarted(num_solutions=3, num_verified=1),
    mars.SynthesisStarted(source_solution_ids=["s"]),
    mars.AnswerSynthesized(answer="4", solution_id="synthesis"),
    mars.Completed(final_answer="4", method="best_verified", confidence=0.8, iterations=1),
    mars.Error(message="no answer", phase="exploration", agent_id="agent-1", solution_id=""),
]


def test_every_type_has_a_sample_here() -> None:
    union, _ = get_args(events.Event)
    assert {type(event) for event in EVERY} == set(get_args(union))
    assert set(get_args(events.MarsEvent)) <= set(get_args(union))


@pytest.mark.parametrize("event", EVERY, ids=lambda event: event.event)
def test_an_event_comes_back_from_json_as_it_was(event: Any) -> None:
    back = EVENT.validate_json(event.model_dump_json())
    assert (type(back), back) == (type(event), event)


@pytest.mark.parametrize("event", EVERY, ids=lambda event: event.event)
def test_the_tag_of_an_event_is_its_name_in_snake_case(event: BaseModel) -> None:
    words = "".join("_" + c.lower() if c.isupper() else c for c in type(event).__name__)
    assert json.loads(event.model_dump_json())["event"] == words.strip("_")


@pytest.mark.parametrize("event", [*EVERY, USAGE], ids=lambda event: type(event).__name__)
def test_an_event_is_frozen(event: BaseModel) -> None:
    name = next(iter(type(event).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(event, name, getattr(event, name))


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_comes_back_from_strict_json(odd: float) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    line = events.TextScored(log_tag="", totals=[odd], usage=USAGE).model_dump_json()
    json.loads(line, parse_constant=refuse)
    back = EVENT.validate_json(line)
    assert isinstance(back, events.TextScored) and back.totals == pytest.approx([odd], nan_ok=True)


@pytest.mark.parametrize("line", ['{"event": "coffee"}', '{"name": "generate"}', '{"event": "span_end"}', "{"])
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_json(line)
