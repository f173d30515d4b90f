"""Whole runs of MARS on virtual time: what is concurrent, who judges whom, what wins, what is accounted for."""

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from optillm_local import Budget, Prompt, Result, ScriptedClient, TokenUsage, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.concurrency import each
from optillm_local.core.errors import (
    BudgetExceeded,
    ClientError,
    EngineDead,
    InvalidConfiguration,
    NoSolutions,
    RequestRejected,
    Unsupported,
)
from optillm_local.core.events import Event
from optillm_local.core.span import open_run
from optillm_local.optimizers.mars import Mars, MarsOutput, StrategyNetwork, aggregation

QUESTION = Prompt.of("What is 3 * 4?", system="Be brief.", seed=0, max_tokens=5000)
STEPS, REVIEW = 12, 7


def says(answer: object, tokens: int = STEPS) -> str:
    """A solution of so many tokens."""
    return "so " * (tokens - 3) + f"Final answer: {answer}"


class Script:
    """What agents say, by what they are asked for; P(CORRECT) by the solution that is judged, and the judge."""

    def __init__(
        self,
        explore: Callable[[int], str | Reply] = lambda agent: says(12),
        correct: Callable[[str, str], float] = lambda solution, judge: 0.9,
        **others: Callable[[Prompt], str | Reply],
    ) -> None:
        self.explore, self.correct = explore, correct
        self.others: dict[str, Callable[[Prompt], str | Reply]] = {
            "review": lambda prompt: " fine" * REVIEW,
            "improve": lambda prompt: says(13),
            "aggregate": lambda prompt: says(14),
            "synthesize": lambda prompt: says(15),
            "extract": lambda prompt: "Multiply: multiply the numbers",
            **others,
        }

    def __call__(self, prompt: Prompt) -> str | Reply:
        purpose, agent = (prompt.log_tag or "").split(" agent-")
        return self.explore(int(agent)) if purpose == "explore" else self.others[purpose](prompt)

    def choices(self, prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        solutions = [m.content for m in prompt.messages if m.role == "assistant" and "Final answer" in m.content]
        yes = self.correct(solutions[-1] if solutions else "", (prompt.log_tag or "").removeprefix("verdict "))
        return {"Yes": yes, "No": 1 - yes}

    def client(self) -> ScriptedClient:
        return ScriptedClient(self, choices=self.choices, seconds_per_token=1.0)


def only(*right: object) -> Callable[[str, str], float]:
    """A verifier that knows the right answers."""
    return lambda solution, judge: 0.9 if solution.endswith(tuple(f": {one}" for one in right)) else 0.1


async def solved(script: Script, client: ScriptedClient | None = None, **options: Any) -> Result:
    return await asolve(QUESTION, Mars(**options), client=client or script.client())


def about(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = result.solution.metadata["mars"]
    return found


# -- what is concurrent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("agents", [1, 2, 5, 40])
async def test_n_agents_take_as_long_as_one_and_so_do_all_verdicts(agents: int) -> None:
    result = await solved(Script(), agents=agents)
    assert result.duration_s == STEPS + REVIEW + 1
    assert result.answer == "12"
    read = await solved(Script(), agents=agents, verification="read")
    assert read.duration_s == STEPS + 2  # two reads for each
    fails = await solved(Script(correct=only(99)), agents=agents, verification="read", max_iterations=0)
    assert len(about(fails)["verifications"]) == agents  # no second read where the first fails


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, STEPS + REVIEW + 1),
        ({"verification": "read"}, STEPS + 2),
        ({"enable_aggregation": True, "aggregation_loops": 1}, STEPS + REVIEW + 1 + STEPS),
        ({"enable_aggregation": True}, STEPS + REVIEW + 1 + 3 * STEPS),
        ({"enable_aggregation": True, "verification": "read"}, STEPS + 2 + 3 * STEPS),
    ],
    ids=str,
)
async def test_the_serial_depth_of_a_run_that_verifies_at_once(options: dict[str, Any], bound: int) -> None:
    script = Script(explore=lambda agent: says(agent), correct=lambda solution, judge: 0.9)
    result = await solved(script, **options)
    assert about(result)["iterations"] == 0
    assert result.duration_s <= bound


async def test_a_solution_is_verified_while_others_decode() -> None:
    judged_at: dict[str, float] = {}
    script = Script(explore=lambda agent: says(agent, tokens=5 if agent == 0 else 50))
    client = script.client()

    def hear(event: Event) -> None:
        if event.event == "verdict_read":
            judged_at.setdefault(event.solution_id, client.clock())

    await asolve(QUESTION, Mars(), client=client, sinks=[hear])
    assert judged_at == {"explore-0": 5 + REVIEW + 1, "explore-1": 50 + REVIEW + 1, "explore-2": 50 + REVIEW + 1}
    assert client.clock() == 50 + REVIEW + 1


async def test_agents_that_cannot_change_the_majority_are_aborted() -> None:
    script = Script(explore=lambda agent: says(12, tokens=500 if agent > 2 else STEPS))
    result = await solved(script, agents=5)
    assert result.duration_s <= STEPS + REVIEW + 2
    assert result.usage.discarded >= 2 * STEPS
    assert (result.answer, result.selection) == ("12", "3 of 3 verified solutions agree")


async def test_a_review_that_cannot_change_the_verdict_is_aborted() -> None:
    def review(prompt: Prompt) -> str:
        return "no " * (3 if prompt.log_tag == "review agent-2" else 200)

    script = Script(correct=lambda solution, judge: 0.1, review=review)
    result = await solved(script, agents=2, max_iterations=0, verifiers=2)
    assert result.duration_s < 60 + STEPS  # nobody waits for the long reviews
    assert [verdict["agent_id"] for verdict in about(result)["verifications"]] == ["agent-2", "agent-2"]


async def test_aggregation_and_improvement_run_side_by_side() -> None:
    script = Script(explore=lambda agent: says(agent), correct=only(13))
    options = {"enable_aggregation": True, "aggregation_loops": 1, "max_iterations": 1, "verification": "read"}
    result = await solved(script, **options)
    assert result.duration_s <= STEPS + 2 + STEPS + 2
    assert result.answer == "13"


async def test_aggregation_ends_once_the_explored_solutions_agree() -> None:
    script = Script(aggregate=lambda prompt: says(14, tokens=500))
    result = await solved(script, enable_aggregation=True)
    assert result.duration_s == STEPS + REVIEW + 1
    assert {one.phase for one in result.solutions} == {"initial"}


@pytest.mark.parametrize(
    ("script", "options", "because"),
    [
        (
            Script(explore=lambda agent: says(12, tokens=500 if agent > 2 else STEPS)),
            {"agents": 5},
            "a verified majority was decided",
        ),
        (
            Script(
                correct=lambda solution, judge: 0.1,
                review=lambda prompt: "no " * (3 if prompt.log_tag == "review agent-2" else 200),
            ),
            {"agents": 2, "max_iterations": 0, "verifiers": 2},
            "the verdicts were decided",
        ),
        (
            Script(aggregate=lambda prompt: says(14, tokens=500)),
            {"enable_aggregation": True},
            "all explored solutions are verified and agree",
        ),
    ],
    ids=["explore", "verify", "aggregate"],
)
async def test_what_is_aborted_says_why(script: Script, options: dict[str, Any], because: str) -> None:
    told: list[Event] = []
    await asolve(QUESTION, Mars(**options), client=script.client(), sinks=[told.append])
    assert {event.reason for event in told if event.event == "stopped_early"} == {because}


# -- who is asked what ---------------------------------------------------------------------------------------


async def test_five_temperatures_arrive_as_five_temperatures() -> None:
    client = Script().client()
    await solved(Script(), client, temperatures=(0.1, 0.2, 0.3, 0.4, 0.5))
    asked = [p.sampling.temperature for p in client.prompts if (p.log_tag or "").startswith("explore")]
    assert sorted(asked) == [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("agents", [1, 2, 3, 7])
@pytest.mark.parametrize("verifiers", [1, 2, 5])
async def test_nobody_judges_their_own_solution_nor_one_twice(agents: int, verifiers: int) -> None:
    started: list[Any] = []
    made: dict[str, str] = {}

    def hear(event: Event) -> None:
        if event.event == "solution_generated":
            made[event.solution_id] = event.agent_id
        elif event.event == "verification_started":
            started.append(event)

    script = Script(explore=lambda agent: says(agent), correct=only(99))
    mars = Mars(agents=agents, verifiers=verifiers, consensus_threshold=1, max_iterations=2)
    await asolve(QUESTION, mars, client=script.client(), sinks=[hear])
    assert len(started) >= agents
    for event in started:
        assert made[event.solution_id] not in event.verifiers
        assert len(set(event.verifiers)) == len(event.verifiers) == verifiers


async def test_all_that_explore_share_system_and_question_and_differ_in_approach() -> None:
    client = Script().client()
    await solved(Script(), client, agents=4)
    asked = [p for p in client.prompts if (p.log_tag or "").startswith("explore")]
    assert {p.instructions for p in asked} == {"Be brief."}
    texts = [p.messages[-1].content for p in asked]
    assert all(text.startswith("What is 3 * 4?\n\n") for text in texts) and len(set(texts)) == 4


async def test_a_conversation_is_kept_and_goes_on_from_the_generated_tokens() -> None:
    client = Script().client()
    question = Prompt.of([*Prompt.of("Hello.").messages, *Prompt.of("3 * 4?").messages], seed=1, max_tokens=5000)
    await asolve(question, Mars(agents=2), client=client)
    review = next(p for p in client.prompts if p.log_tag == "review agent-1")
    roles = [message.role for message in review.messages]
    assert roles == ["user", "user", "assistant", "user"]
    assert len(review.messages[2].token_ids) == STEPS


async def test_feedback_reaches_the_improver_and_what_then_passes_is_verified() -> None:
    def review(prompt: Prompt) -> str:
        return "The product is off by one." if prompt.messages[-2].content.endswith(": 11") else "fine"

    script = Script(explore=lambda agent: says(11), correct=only(13), review=review)
    client = script.client()
    result = await solved(script, client)
    told = [p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("improve")]
    assert told and all("- The product is off by one." in text for text in told)
    assert (result.answer, result.solution.is_verified, result.solution.phase) == ("13", True, "improved")
    [parent] = [one for one in result.solutions if one.id in result.solution.parents]
    assert parent.agent_id != result.solution.agent_id and not parent.is_verified
    assert (about(result)["iterations"], parent.verification_failures > 0) == (1, True)


async def test_cheap_verdicts_tell_the_improver_what_they_mean() -> None:
    script = Script(explore=lambda agent: says(11), correct=only(13))
    client = script.client()
    await solved(script, client, verification="read")
    told = "".join(p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("improve"))
    assert "- whether it answers what is asked: P(correct) 0.10\n" in told


async def test_conversations_do_not_grow_with_the_rounds() -> None:
    script = Script(explore=lambda agent: says(11), correct=only(99), improve=lambda p: says(p.sampling.seed))
    client = script.client()
    result = await solved(script, client, max_iterations=4)
    assert about(result)["iterations"] == 4
    assert max(len(p.messages) for p in client.prompts if (p.log_tag or "").startswith("improve")) == 3


async def test_the_improvement_ends_when_nothing_changes() -> None:
    script = Script(explore=lambda agent: says(11), correct=only(99), improve=lambda prompt: says(11))
    assert about(await solved(script))["iterations"] == 1


async def test_an_improvement_round_ends_when_enough_are_verified() -> None:
    def improve(prompt: Prompt) -> str:
        return says(13, tokens=STEPS if prompt.log_tag == "improve agent-2" else 900)

    script = Script(explore=lambda agent: says(11), correct=only(13), improve=improve)
    assert (await solved(script)).duration_s < 100
    two = await solved(script, min_verified_solutions=2, timeout_seconds=3000)
    assert two.duration_s > 900 and two.answer == "13"


# -- what wins -----------------------------------------------------------------------------------------------


async def test_one_verified_answer_beats_unanimous_wrong_ones() -> None:
    script = Script(explore=lambda agent: says(12 if agent == 3 else 7), correct=only(12))
    result = await solved(script, agents=5)
    assert (result.answer, about(result)["selection_method"]) == ("12", "best_verified")


async def test_a_verified_majority_beats_the_surest_of_the_verified() -> None:
    script = Script(
        explore=lambda agent: Reply(says(12 if agent else 7), logprob=-0.5 if agent else -0.01),
        correct=lambda solution, judge: 0.6 if solution.endswith("12") else 0.99,
    )
    result = await solved(script)
    assert (result.answer, about(result)["selection_method"]) == ("12", "verified_majority")


async def test_of_two_verified_answers_that_tie_the_surer_wins() -> None:
    script = Script(explore=lambda agent: Reply(says(7 + agent % 2), logprob=-0.5 if agent % 2 else -2.0))
    result = await solved(script, agents=4)
    assert (result.answer, about(result)["selection_method"]) == ("8", "best_verified")


async def test_a_full_tie_goes_to_the_first_agent() -> None:
    result = await solved(Script(explore=lambda agent: says(7 + agent)), agents=2)
    assert result.solution.id == "explore-0" and result.solution.is_verified


async def test_without_a_verified_solution_one_is_synthesised() -> None:
    script = Script(explore=lambda agent: says(agent), correct=only(99))
    result = await solved(script, max_iterations=0)
    assert (result.answer, about(result)["selection_method"]) == ("15", "synthesized")
    assert len(result.solution.parents) == 3


async def test_what_aggregation_made_stands_in_for_a_synthesis() -> None:
    script = Script(explore=lambda agent: says(agent), correct=only(99))
    result = await solved(script, max_iterations=0, enable_aggregation=True)
    assert (result.answer, result.selection) == ("14", "nothing is verified; rsa of 3 agents' solutions")


async def test_without_a_synthesis_the_surest_wins() -> None:
    script = Script(
        explore=lambda agent: Reply(says(agent), logprob=-0.1 * (3 - agent)),
        correct=only(99),
        synthesize=lambda prompt: "hm " * 3,
    )
    result = await solved(script, max_iterations=0)
    assert result.solution.id == "explore-2" or result.answer == "hm hm hm"


async def test_a_verifier_that_always_says_yes_leaves_the_majority() -> None:
    script = Script(explore=lambda agent: says(7 if agent == 1 else 12), correct=lambda solution, judge: 1.0)
    assert (await solved(script)).answer == "12"


# -- what goes wrong -----------------------------------------------------------------------------------------


async def test_empty_answers_are_recorded_and_the_run_goes_on() -> None:
    result = await solved(Script(explore=lambda agent: "" if agent == 1 else says(12)))
    assert result.answer == "12" and len(result.solutions) == 2
    assert about(result)["failures"] == ["exploration agent-1 explore-1: it said nothing"]


async def test_only_empty_answers_are_no_solutions() -> None:
    with pytest.raises(NoSolutions, match="none of 3 agents has a solution: ") as info:
        await solved(Script(explore=lambda agent: "  "))
    assert all(f"agent-{n} explore-{n}: it said nothing" in str(info.value) for n in range(3))


async def test_truncated_solutions_without_an_answer_are_rewritten_and_not_judged() -> None:
    script = Script(explore=lambda agent: "so it goes " * 10, correct=only(13))
    client = script.client()
    result = await asolve(QUESTION.but(max_tokens=20), Mars(agents=3), client=client)
    told = [p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("improve")]
    assert all("cut off before it stated an answer" in text for text in told) and len(told) == 3
    assert (result.answer, result.solution.is_verified) == ("13", True)


async def test_if_all_are_truncated_the_surest_text_is_the_answer_and_says_so() -> None:
    endless = "so it goes " * 10
    script = Script(lambda agent: endless, improve=lambda p: endless, synthesize=lambda p: endless)
    result = await asolve(QUESTION.but(max_tokens=20), Mars(), client=script.client())
    assert about(result)["selection_method"] == "best_confidence" and result.answer.startswith("so it goes")
    assert result.selection.startswith("nothing is verified; best confidence of ")
    assert result.solution.metadata["finish_reason"] == "length" and not result.solution.is_verified


async def test_an_agent_that_raises_is_recorded_and_the_run_goes_on() -> None:
    def explore(agent: int) -> str:
        if agent == 1:
            raise ClientError("the wire broke")
        return says(12)

    events: list[Any] = []
    result = await asolve(QUESTION, Mars(), client=Script(explore).client(), sinks=[events.append])
    assert result.answer == "12"
    [error] = [event for event in events if event.event == "error"]
    assert (error.phase, error.agent_id, error.solution_id) == ("exploration", "agent-1", "explore-1")
    assert "the wire broke" in error.message


@pytest.mark.parametrize(
    ("purpose", "answers"),
    [("review", {"15"}), ("improve", {"15"}), ("aggregate", {"15"}), ("synthesize", {"11", "13"})],
)
async def test_a_step_that_always_fails_leaves_the_others(purpose: str, answers: set[str]) -> None:
    def fails(prompt: Prompt) -> str:
        raise ClientError("the wire broke")

    script = Script(lambda agent: says(11), only(99), **{purpose: fails})
    result = await solved(script, enable_aggregation=purpose == "aggregate", max_iterations=2)
    assert result.answer in answers
    assert any(failure.endswith("the wire broke") for failure in about(result)["failures"])


async def test_one_verifier_that_fails_leaves_the_verdicts_of_the_others() -> None:
    def correct(solution: str, judge: str) -> float:
        if judge == "agent-1":
            raise ClientError("no verdict")
        return 0.9

    result = await solved(Script(correct=correct), verifiers=2, consensus_threshold=1)
    assert result.solution.is_verified and len(about(result)["failures"]) == 2


async def test_a_dead_engine_ends_the_run_with_its_own_error() -> None:
    def explore(agent: int) -> str:
        raise EngineDead("gone")

    with pytest.raises(EngineDead, match="gone"):
        await solved(Script(explore))


async def test_a_request_that_is_refused_for_all_is_refused() -> None:
    def explore(agent: int) -> str:
        raise RequestRejected("adapter", "x", "unknown")

    with pytest.raises(RequestRejected, match="adapter='x'"):
        await solved(Script(explore))


PHASES = ["exploration", "verification", "aggregation", "improvement", "strategies", "selection"]
ALL_PHASES: dict[str, Any] = {
    "enable_aggregation": True,
    "enable_strategy_network": True,
    "aggregation_loops": 1,
    "aggregation_population_size": 2,
    "max_iterations": 1,
    "min_verified_solutions": 3,
}
# One explored solution is verified, and one only of the rest: all phases have work to do.
EVERYTHING = Script(explore=lambda agent: says(agent), correct=only(2), extract=lambda p: "Look: look around")


async def starts(phase: str) -> float:
    """When the phase begins in a run that nothing ends early."""
    client, found = EVERYTHING.client(), []

    def hear(event: Event) -> None:
        if event.event == "span_begin" and event.name == phase:
            found.append(client.clock())

    await asolve(QUESTION, Mars(**ALL_PHASES), client=client, sinks=[hear])
    return float(found[0])


@pytest.mark.parametrize("phase", PHASES)
async def test_a_budget_that_ends_in_a_phase_returns_the_best_so_far(phase: str) -> None:
    at, client = await starts(phase), EVERYTHING.client()
    budget = Budget(seconds=max(at, 1) + 0.5)
    result = await asolve(QUESTION, Mars(**ALL_PHASES), client=client, budget=budget)
    assert result.answer and (result.budget_exhausted or phase == "selection")
    assert client.stats().running == 0 and client.clock() <= at + 3
    assert result.usage.completion == client.stats().generated_tokens
    if phase in ("improvement", "strategies", "selection"):
        assert result.answer == "2"


@pytest.mark.parametrize("tokens", [1, 5, 30, 40, 60, 90, 120])
async def test_a_token_budget_is_kept_wherever_it_ends(tokens: int) -> None:
    client = EVERYTHING.client()
    result = await asolve(QUESTION, Mars(**ALL_PHASES), client=client, budget=Budget(tokens=tokens))
    assert result.answer and result.budget_exhausted and about(result)["budget_exhausted"]
    assert tokens <= result.usage.completion <= tokens + 9 * 12
    assert result.usage.completion == client.stats().generated_tokens


@pytest.mark.parametrize("phase", PHASES)
async def test_cancelling_in_a_phase_ends_everything_and_counts_it(phase: str) -> None:
    client, told = EVERYTHING.client(), Counter[str]()
    usage = TokenUsage()

    with anyio.CancelScope() as scope:

        def hear(event: Event) -> None:
            nonlocal usage
            told[event.event] += 1
            if event.event in ("sequence_completed", "options_read"):
                usage += TokenUsage(**event.usage.model_dump())
            if event.event == "span_begin" and event.name == phase:
                scope.cancel()

        await asolve(QUESTION, Mars(**ALL_PHASES), client=client, sinks=[hear])
    assert scope.cancelled_caught or phase == "selection"
    assert client.stats().running == 0
    assert told["sequence_started"] == told["sequence_completed"]
    assert usage.completion <= client.stats().generated_tokens


async def test_the_timeout_returns_the_best_so_far_and_says_so() -> None:
    script = Script(explore=lambda agent: says(agent, tokens=5 if agent == 2 else 900))
    result = await solved(script, timeout_seconds=50, verifiers=2)
    assert (result.answer, result.solution.is_verified) == ("2", True)
    assert about(result)["timed_out"] and not about(result)["budget_exhausted"]
    assert result.selection.endswith("; timeout_seconds=50 ended the run early")
    assert result.duration_s <= 51


# -- what is told and counted --------------------------------------------------------------------------------


async def test_usage_by_phase_agent_and_purpose_adds_up_to_the_engine() -> None:
    client = EVERYTHING.client()
    output = await Mars(**ALL_PHASES).run(QUESTION, client)
    assert isinstance(output, MarsOutput)
    for parts in (output.usage_by_phase, output.usage_by_agent, output.usage_by_purpose):
        assert sum(parts.values(), start=TokenUsage()) == output.usage
    assert output.usage.completion == client.stats().generated_tokens
    assert output.usage.prompt == client.stats().computed_prompt_tokens
    assert set(output.usage_by_phase) >= {
        "exploration",
        "verification",
        "aggregation",
        "improvement",
        "strategies",
    }
    assert set(output.usage_by_agent) == {"agent-0", "agent-1", "agent-2"}


async def test_the_output_has_everything() -> None:
    output = await Mars(max_iterations=1).run(QUESTION, Script(correct=only(13)).client())
    assert output.answer == output.solution.answer == "13" and "Final answer: 13" in output.reasoning
    assert output.final_solution_id in [one.id for one in output.all_solutions]
    assert (output.selection_method, output.iterations) == ("verified_majority", 1)
    assert output.text.startswith("<think>\n") and output.text.endswith("</think>\n\n13")
    assert output.completed_at and output.quality.verified >= 2 and output.quality.assessment in ("high", "medium")
    assert {v.solution_id for v in output.verifications} <= {one.id for one in output.all_solutions}
    parts = output.solution.metadata["confidence"]
    assert set(parts) == {"pass_ratio", "probability", "agreement", "likelihood"}
    plain = await Mars(use_thinking_tags=False).run(QUESTION, Script().client())
    assert plain.text == "12"


async def test_calibration_is_reported_where_the_answer_is_known() -> None:
    script = Script(explore=lambda agent: says(11 + agent % 2), correct=lambda solution, judge: 0.9)
    output = await Mars(reference_answer="12", agents=2).run(QUESTION, script.client())
    assert output.calibration
    assert (output.calibration.verdicts, output.calibration.right, output.calibration.accuracy) == (4, 2, 0.5)
    assert output.calibration.brier == pytest.approx((0.81 + 0.01) / 2)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs what is ready in random order, on purpose
async def test_with_the_same_seed_two_runs_tell_the_same() -> None:
    async def told() -> list[dict[str, Any]]:
        events: list[Event] = []
        await asolve(QUESTION, Mars(**ALL_PHASES), client=EVERYTHING.client(), sinks=[events.append])
        return [event.model_dump(exclude={"timestamp"}) for event in events]

    first, second = await told(), await told()
    assert first == second and len(first) > 50


async def test_events_are_streamed_in_the_order_of_their_causes() -> None:
    client = EVERYTHING.client()
    seen: dict[str, int] = {}
    kinds = []
    async for event in Mars(**ALL_PHASES).stream(QUESTION, client):
        kinds.append(event.event)
        if event.event == "solution_generated":
            seen[event.solution_id] = 0
        elif event.event == "verification_started":
            seen[event.solution_id] += 1
        elif event.event == "solution_verified":
            assert seen[event.solution_id] == 1
        elif event.event == "solution_improved":
            assert event.parent_id in seen and event.solution_id in seen
    assert (kinds[0], kinds[-2:]) == ("exploration_started", ["answer_selected", "completed"])
    wanted = "aggregation_started solutions_aggregated improvement_started strategy_extracted selection_started"
    assert set(wanted.split()) <= set(kinds)


async def test_a_listener_that_leaves_ends_the_run() -> None:
    client = EVERYTHING.client()
    stream = Mars(**ALL_PHASES).stream(QUESTION, client)
    assert (await anext(stream)).event == "exploration_started"
    await stream.aclose()
    assert client.stats().running == 0 and client.clock() < STEPS


async def test_the_stream_raises_what_the_run_raises() -> None:
    with pytest.raises(NoSolutions):
        async for _ in Mars().stream(QUESTION, Script(explore=lambda agent: "").client()):
            pass


async def test_debug_logs_every_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="optillm_local"):
        await solved(Script(), debug=True)
    assert any('"event":"solution_verified"' in record.message for record in caplog.records)


# -- lightweight, strategies, persistence --------------------------------------------------------------------


async def test_short_answers_make_a_lightweight_run_in_what_is_not_set() -> None:
    short = QUESTION.but(max_tokens=4000)
    light = await Mars(enable_aggregation=False).run(short, Script().client())
    assert light.is_lightweight and len(light.all_solutions) == 2
    told = await create("mars", agents=5).run(short, Script().client())  # type: ignore[attr-defined]
    assert len(told.all_solutions) == 5
    full = await Mars(auto_lightweight_mode=False).run(short, Script().client())
    assert not full.is_lightweight and len(full.all_solutions) == 3


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
async def test_strategies_of_one_run_are_shown_to_the_agents_of_the_next(kept: str, tmp_path: Any) -> None:
    script, network = Script(), StrategyNetwork()
    mars = Mars(enable_strategy_network=True, path=tmp_path / "mars.db" if kept == "in a file" else None)
    shared = None if kept == "in a file" else network
    first = await mars.run(QUESTION, script.client(), network=shared)
    assert first.strategies == {"shown": [], "learned": ["Multiply"] * len(first.strategies["learned"])}
    client = script.client()
    second = await mars.run(QUESTION, client, network=shared)
    assert second.strategies["shown"] == ["Multiply"]
    asked = [p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("explore")]
    assert all("- Multiply: multiply the numbers" in text for text in asked)
    third = await mars.run(Prompt.of("Who wrote Hamlet?", max_tokens=5000), script.client(), network=shared)
    assert third.strategies["shown"] == []


async def test_the_outcome_of_a_run_rates_what_was_shown() -> None:
    network = StrategyNetwork()
    network.add("Multiply", "multiply what is given", question="What is 2 * 2?", discovered_by="agent-0")
    mars = Mars(enable_strategy_network=True, max_iterations=0)
    await mars.run(QUESTION, Script().client(), network=network)
    assert network.all()[0].success_rate == pytest.approx(0.6)
    await mars.run(QUESTION, Script(correct=only(99)).client(), network=network)
    assert network.all()[0].success_rate == pytest.approx(0.48)
    assert network.all()[0].uses == 2


async def test_options_that_cannot_work_are_refused_by_name() -> None:
    with pytest.raises(InvalidConfiguration, match=r"mars option agnts=5: unknown\. Did you mean 'agents'"):
        create("mars", agnts=5)


async def test_a_budget_without_any_text_is_exceeded() -> None:
    client = Script(explore=lambda agent: "").client()
    with pytest.raises((BudgetExceeded, NoSolutions)):
        await asolve(QUESTION, Mars(), client=client, budget=Budget(tokens=1))


async def test_a_run_without_any_verdict_is_kept_and_is_json(tmp_path: Path) -> None:
    cut = Script(
        lambda agent: "so it goes " * 10,
        improve=lambda p: "on and on " * 10,
        synthesize=lambda p: "on and on " * 10,
    )
    output = await Mars(path=tmp_path / "mars.db").run(QUESTION.but(max_tokens=20), cut.client())
    assert output.as_dict()["quality"]["mean_probability"] is None
    with sqlite3.connect(tmp_path / "mars.db") as connection:
        [(stored,)] = connection.execute("SELECT output FROM runs WHERE completed_at IS NOT NULL")
    connection.close()
    assert json.loads(stored)["answer"].startswith(("so it goes", "on and on"))


async def test_two_of_them_in_one_run_keep_their_solutions_and_accounts_apart() -> None:
    client = Script(correct=only(13)).client()
    outputs: list[MarsOutput] = []

    async def run(number: int) -> None:
        outputs.append(await Mars(max_iterations=1).run(QUESTION.but(seed=number), client))

    with open_run() as whole:
        await each(run, range(2))
    assert len({one.id for one in whole.solutions}) == len(whole.solutions) == 12
    assert sum(one.is_verified for one in whole.solutions) == 6
    assert sum((output.usage for output in outputs), start=TokenUsage()) == whole.usage
    assert whole.usage.completion == client.stats().generated_tokens


# -- what a review of fresh eyes found ---------------------------------------------------------------------------


@pytest.mark.parametrize("verification", ["review", "read"])
async def test_a_judge_that_fails_is_replaced_and_costs_nobody_elses_verdict(verification: str) -> None:
    def correct(solution: str, judge: str) -> float:
        if judge == "agent-1":
            raise ClientError("no verdict")
        return 0.9 if solution.endswith((": 12", ": 13")) else 0.1

    result = await solved(Script(correct=correct), agents=4, verification=verification, min_verified_solutions=4)
    first = [v["agent_id"] for v in about(result)["verifications"] if v["solution_id"] == "explore-0"]
    assert result.answer == "12" and sorted(first) == ["agent-2", "agent-3"]
    alone = await solved(Script(lambda agent: says(11), correct), agents=1, verification=verification)
    assert [v["agent_id"] for v in about(alone)["verifications"] if v["solution_id"] == "explore-0"] == ["agent-2"]
    assert "13" in [one.answer for one in alone.solutions]  # the one verdict there is sends it to the improver


async def test_a_rewriting_that_changes_nothing_is_no_new_solution() -> None:
    script = Script(lambda agent: says(11), only(99), improve=lambda prompt: says(11), synthesize=lambda p: "")
    result = await solved(script)
    assert {one.phase for one in result.solutions} == {"initial"}
    assert about(result)["quality"]["assessment"] == "low"


async def test_what_nobody_judged_does_not_rank_above_what_passed_for_probable() -> None:
    def correct(solution: str, judge: str) -> float:
        return 0.5 if solution.endswith(": 1") else 0.1

    script = Script(lambda agent: says(agent), correct, synthesize=lambda prompt: "")
    assert (await solved(script, max_iterations=0)).answer == "1"


async def test_the_last_number_of_a_text_that_was_cut_off_is_no_answer() -> None:
    cut = "3 * 4 is 3 + 3 + 3 and then there is still another 3 to add to that, which makes one more than before"
    script = Script(lambda agent: cut, correct=lambda solution, judge: 1.0, improve=lambda prompt: says(12))
    client = script.client()
    result = await asolve(QUESTION.but(max_tokens=15), Mars(agents=3), client=client)
    assert (result.answer, result.solution.phase) == ("12", "improved")
    assert not any(v["solution_id"] in ("explore-0", "explore-1") for v in about(result)["verifications"])
    stated = Script(lambda agent: f"Final answer: 12 since {cut}")
    whole = await asolve(QUESTION.but(max_tokens=15), Mars(agents=3), client=stated.client())
    assert (whole.answer, whole.solution.is_verified) == ("12", True)


async def test_a_file_that_cannot_be_written_any_more_does_not_end_the_run(tmp_path: Path) -> None:
    path = tmp_path / "mars.db"
    script = Script()
    with sqlite3.connect(path, isolation_level=None) as other:

        def explore(agent: int) -> str:
            if not other.in_transaction:
                other.execute("BEGIN IMMEDIATE")
            return says(12)

        script.explore = explore
        output = await Mars(path=path, agents=2).run(QUESTION, script.client())
    other.close()
    assert output.answer == "12"
    assert [failure for failure in output.failures if f"{path} cannot be written: database is locked" in failure]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_runs_tell_the_same_where_answers_are_formulas(anyio_backend_name: str) -> None:
    wordings = ["$x^2+1$", "$1+x^2$", "$x^2-1$", "$(x-1)(x+1)$"]
    script = Script(lambda agent: says(wordings[agent]), only("$x^2-1$"), improve=lambda p: says("$2x$"))

    async def told() -> list[dict[str, Any]]:
        events: list[Event] = []
        mars = Mars(agents=4, verification="read", enable_aggregation=True, aggregation_loops=1, max_iterations=1)
        result = await asolve(QUESTION, mars, client=script.client(), sinks=[events.append])
        assert about(result)["quality"]["distinct_answers"] >= 3
        return [event.model_dump(exclude={"timestamp"}) for event in events]

    assert await told() == await told()


async def test_one_optimizer_remembers_what_it_learned() -> None:
    mars, script = Mars(enable_strategy_network=True), Script()
    first, second = await mars.run(QUESTION, script.client()), await mars.run(QUESTION, script.client())
    assert (first.strategies["learned"], second.strategies["shown"]) == (["Multiply"], ["Multiply"])
    assert second.strategies["learned"] == []  # it is known
    assert mars == Mars(enable_strategy_network=True)


async def test_the_text_has_one_thought_and_the_answer() -> None:
    script = Script(lambda agent: "<think>three fours</think> so Final answer: 12")
    output = await Mars().run(QUESTION, script.client())
    assert output.text == "<think>\nthree fours\n\nso Final answer: 12\n</think>\n\n12" == output.as_dict()["text"]
    assert (output.seed, output.as_dict()["seed"]) == (0, 0)


async def test_a_thought_that_was_cut_off_reaches_the_improver_without_its_tag() -> None:
    script = Script(lambda agent: says(11), only(13), review=lambda prompt: "<think>" + "let me see " * 5)
    client = script.client()
    await solved(script, client, review_tokens=9)
    told = [p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("improve")]
    assert told and all("- let me see" in text and "<think>" not in text for text in told)


async def test_the_questions_stop_texts_end_solutions_and_not_reviews() -> None:
    script = Script(review=lambda prompt: "fine\n\nand dandy")
    client = script.client()
    await asolve(QUESTION.but(stop=("\n\n",), presence_penalty=0.5), Mars(), client=client)
    how = {(p.log_tag or "").split()[0]: p.sampling for p in client.prompts}
    assert (how["explore"].stop, how["review"].stop) == (("\n\n",), ())
    assert (how["explore"].presence_penalty, how["review"].presence_penalty) == (0.5, 0.0)


async def test_a_vote_counts_what_there_is_when_it_decides() -> None:
    script = Script(lambda agent: says(agent), only(99), improve=lambda prompt: says(13))
    result = await solved(script, enable_aggregation=True, aggregation="majority", max_iterations=1)
    assert (result.answer, result.selection) == ("13", "nothing is verified; majority of 3 solutions")


async def test_all_that_are_wanted_are_verified_before_a_majority_decides() -> None:
    result = await solved(Script(), agents=5, min_verified_solutions=5)
    assert about(result)["quality"]["verified"] == 5


async def test_an_agent_that_fails_may_be_what_decides() -> None:
    def explore(agent: int) -> str:
        if agent == 2:
            return " "
        return says(12, tokens=STEPS if agent < 2 else 500)

    script = Script(explore)
    assert (await solved(script, agents=3)).duration_s <= STEPS + REVIEW + 1


async def test_a_strategy_of_the_program_that_breaks_is_recorded() -> None:
    @aggregation.register_aggregator
    class Broken(aggregation.Aggregator):
        name = "broken"
        needs_verdicts = False

        async def aggregate(self, pool: Any, team: Any) -> Any:
            raise ValueError("a bug")

    try:
        result = await solved(Script(lambda agent: says(agent)), enable_aggregation=True, aggregation="broken")
    finally:
        del aggregation._registered["broken"]
    assert result.solution.is_verified
    assert about(result)["failures"] == ["aggregation: broken: ValueError: a bug"]


async def test_without_log_probabilities_the_run_says_so_at_once() -> None:
    class Blind(ScriptedClient):
        async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Any:
            raise Unsupported("no log-probabilities")

    with pytest.raises(Unsupported, match="no log-probabilities"):
        await Mars().run(QUESTION, Blind(Script()))
