"""The events of MARS in words."""

import math

import pytest

from optillm_local.core import mars_events as mars
from optillm_local.core.events import Event
from optillm_local.report.mars import mars_line

IDS = ["explore-0", "explore-1"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            mars.ExplorationStarted(num_agents=3, temperatures=[0.3, 0.6, 1.0], strategies=[]),
            "3 agents at temperatures 0.3, 0.6, 1",
        ),
        (
            mars.ExplorationStarted(num_agents=8, temperatures=[0.3 + n / 10 for n in range(8)], strategies=["a"]),
            "8 agents at temperatures 0.3 to 1; shown 1 strategy",
        ),
        (
            mars.SolutionVerified(solution_id="e-0", is_correct=True, score=0.931, passes=2, failures=0, parts={}),
            "solution e-0: verified, confidence 0.93 (2 passes, 0 failures)",
        ),
        (
            mars.SolutionVerified(
                solution_id="e-0", is_correct=False, score=math.nan, passes=1, failures=1, parts={}
            ),
            "solution e-0: not verified, confidence - (1 pass, 1 failure)",
        ),
        (mars.AggregationStarted(method="rsa", num_solutions=3), "rsa begins with 3 solutions"),
        (
            mars.SolutionsAggregated(method="rsa", result_solution_id="rsa-3.0", source_solution_ids=IDS),
            "rsa is over: rsa-3.0 stands for 2 solutions",
        ),
        (mars.ImprovementStarted(iteration=2, solution_ids=IDS), "improvement round 2: explore-0, explore-1"),
        (
            mars.ImprovementStarted(iteration=1, solution_ids=list("abcdefgh")),
            "improvement round 1: a, b, c, d, e, f and 2 more",
        ),
        (
            mars.SolutionImproved(solution_id="e-0+1", parent_id="e-0", agent_id="agent-2"),
            "solution e-0+1: e-0, rewritten by agent-2",
        ),
        (
            mars.StrategyExtracted(strategy_id="1", technique="Check\nunits\x1b[2J", solution_id="e-0"),
            "strategy from e-0: Check units",
        ),
        (mars.SynthesisStarted(source_solution_ids=IDS), "synthesis of explore-0, explore-1"),
        (mars.AnswerSynthesized(answer="12", solution_id="synthesis"), "solution synthesis: states 12"),
        (
            mars.Error(
                message="improvement agent-0:\nit\x07", phase="improvement", agent_id="agent-0", solution_id=""
            ),
            "failed: improvement agent-0: it",
        ),
        (
            mars.VerdictRead(solution_id="e-0", agent_id="a", probability=0.9, label_mass=1.0, feedback="long"),
            "",
        ),
    ],
    ids=lambda value: getattr(value, "event", ""),
)
def test_an_event_is_a_line(event: Event, line: str) -> None:
    assert mars_line(event) == line
