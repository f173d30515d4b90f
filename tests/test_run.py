"""One question, one optimizer, one result, and the whole account of it."""

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from optillm_local import (
    Budget,
    ModelClient,
    Optimizer,
    Prompt,
    Result,
    ScriptedClient,
    Solution,
    TokenUsage,
    asolve,
    solve,
)
from optillm_local.core.budget import Meter
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration, RequestRejected
from optillm_local.core.options import frozen_options
from optillm_local.core.span import keep, open_run
from optillm_local.optimizers.best_of_n import BestOfN

QUESTION = "What is 3 * 4?"
KEYS = {
    *("answer", "reasoning", "selection", "metadata", "optimizer", "options", "usage", "engine", "solutions"),
    *("budget_exhausted", "seed", "duration_s", "model", "versions"),
}


def twelve() -> ScriptedClient:
    return ScriptedClient(lambda prompt: "The answer is 12.")


def by_seed(prompt: Prompt) -> str:
    return f"{prompt.sampling.seed} says: {'word ' * ((prompt.sampling.seed or 0) % 5)}12."


@frozen_options
class Insists(Optimizer):
    """Asks until the budget is spent, and keeps the candidates it is given on the way."""

    name: ClassVar[str] = "insists"
    description: ClassVar[str] = "for tests"
    kept: tuple[Any, ...] = ()

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        for candidate in self.kept:
            keep(candidate)
        while True:
            await client.sample(Prompt.of(query))


@pytest.mark.parametrize("optimizer", ["single", "best_of_n", "self_consistency"])
async def test_a_result_is_strict_json_with_every_key(optimizer: str) -> None:
    result = await asolve(QUESTION, optimizer, client=twelve(), seed=7, sampling={"logprobs": None})
    read = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert set(read) == KEYS
    assert set(read["usage"]) == {"prompt", "cached", "completion", "reasoning", "discarded", "total"}
    assert {"steps", "computed_prompt_tokens", "generated_tokens", "mean_batch"} <= set(read["engine"])
    assert (read["optimizer"], read["seed"], read["model"]) == (optimizer, 7, "scripted")
    assert "12" in read["answer"] and read["reasoning"] == "The answer is 12."
    assert len(read["solutions"]) == read["options"].get("n", 1)
    assert {"python", "optillm-local"} <= set(read["versions"])


async def test_options_that_are_paths_are_text_in_json(tmp_path: Path) -> None:
    result = await asolve(QUESTION, "mars", client=twelve(), path=tmp_path / "mars.db")
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["options"]["path"] == str(
        tmp_path / "mars.db"
    )


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_null_wherever_it_stands(odd: float) -> None:
    solution = Solution("4", verification_score=odd, metadata={"a": odd, "b": [1.5, (odd,)], "c": {"d": odd}})
    plain = solution.as_dict()
    assert plain["verification_score"] is plain["temperature"] is None
    assert plain["metadata"] == {"a": None, "b": [1.5, [None]], "c": {"d": None}}


@pytest.mark.parametrize("optimizer", ["single", "best_of_n", "self_consistency"])
async def test_usage_is_the_sum_over_the_events_and_what_the_engine_counted(optimizer: str) -> None:
    events: list[Any] = []
    client = ScriptedClient(by_seed)
    await client.sample(Prompt.of("Something before the run."))
    before = client.stats()
    result = await asolve(QUESTION, optimizer, client=client, sinks=[events.append])
    *calls, end = [TokenUsage(**e.usage.model_dump()) for e in events if hasattr(e, "usage")]
    assert result.usage == end == sum(calls, start=TokenUsage())
    assert result.usage.completion == result.engine.generated_tokens > 0
    assert result.usage.prompt == result.engine.computed_prompt_tokens
    assert result.engine == client.stats() - before


async def test_events_tell_the_run_in_order() -> None:
    events: list[Any] = []
    result = await asolve(QUESTION, "self_consistency", n=2, client=twelve(), sinks=[events.append], seed=3)
    assert [event.event for event in events] == [
        *("run_started", "span_begin", "sequence_started", "sequence_started"),
        *("sequence_completed", "votes_counted", "stopped_early"),
        *("sequence_completed", "votes_counted", "span_end"),
        *("solution_generated", "solution_generated", "answer_selected", "run_completed"),
    ]
    first, last = events[0], events[-1]
    assert (first.optimizer, first.options["n"], first.query, first.seed) == ("self_consistency", 2, QUESTION, 3)
    assert (last.answer, last.selection, last.engine) == (result.answer, result.selection, result.engine.as_dict())
    assert sorted(event.timestamp for event in events) == [event.timestamp for event in events]


async def test_watchers_see_every_token_and_sinks_do_not() -> None:
    sink: list[Any] = []
    watcher: list[Any] = []
    await asolve(QUESTION, "single", client=twelve(), sinks=[sink.append], watchers=[watcher.append])
    assert [event for event in watcher if event.event != "tokens_decoded"] == sink
    assert len(watcher) == len(sink) + 4


async def test_the_seed_in_the_result_repeats_the_run() -> None:
    first = await asolve(QUESTION, "best_of_n", client=ScriptedClient(by_seed))
    again = await asolve(QUESTION, "best_of_n", client=ScriptedClient(by_seed), seed=first.seed)
    other = await asolve(QUESTION, "best_of_n", client=ScriptedClient(by_seed), seed=(first.seed or 0) + 1)
    assert first.seed is not None
    said = [{one.answer for one in result.solutions} for result in (first, again, other)]
    assert said[0] == said[1] != said[2]
    assert again.answer == first.answer


@pytest.mark.parametrize(("given", "in_prompt", "used"), [(None, 5, 5), (7, 5, 7), (7, None, 7)])
async def test_a_seed_given_to_the_run_goes_before_the_prompts(
    given: int | None, in_prompt: int | None, used: int
) -> None:
    client = twelve()
    result = await asolve(Prompt.of(QUESTION, seed=in_prompt), "single", client=client, seed=given)
    assert result.seed == client.prompts[0].sampling.seed == used


async def test_sampling_and_options_reach_model_and_optimizer() -> None:
    client = twelve()
    result = await asolve(
        QUESTION, "best_of_n", n="2", client=client, sampling={"temperature": 0.25, "max_tokens": 2}
    )
    assert (result.options["n"], result.options["scorer"]["name"]) == (2, "verifier")
    assert [one.temperature for one in result.solutions] == [0.25, 0.25]
    assert [one.token_count for one in result.solutions] == [2, 2]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"optimizer": "singel"}, InvalidConfiguration, "Did you mean 'single'"),
        ({"optimizer": BestOfN(), "n": 3}, InvalidConfiguration, "has its options"),
        ({"sampling": {"temperature": 9}}, RequestRejected, "temperature=9: must be between"),
        ({"seed": -1}, RequestRejected, "seed=-1"),
    ],
)
async def test_what_cannot_work_is_refused_before_the_model_is_asked(
    how: dict[str, Any], error: type[Exception], message: str
) -> None:
    client = twelve()
    with pytest.raises(error, match=message):
        await asolve(QUESTION, client=client, **how)
    assert client.prompts == []


async def test_a_budget_spent_before_any_candidate_is_an_error_and_on_the_record() -> None:
    events: list[Any] = []
    with pytest.raises(BudgetExceeded, match="6 tokens"):
        await asolve(QUESTION, Insists(), client=twelve(), budget=Budget(tokens=6), sinks=[events.append])
    assert events[-1].event == "run_failed"
    assert (events[-1].error, events[-1].message) == ("BudgetExceeded", "the budget of 6 tokens is spent (6 used)")


@pytest.mark.parametrize(
    ("kept", "answer"),
    [
        ([Solution("a"), Solution("b")], "b"),
        ([Solution("a", verification_score=0.1), Solution("b")], "a"),
        ([Solution("a", verification_score=0.4), Solution("b", verification_score=0.3)], "a"),
        ([Solution("a", verification_score=0.4), Solution("b", is_verified=True)], "b"),
    ],
)
async def test_a_spent_budget_returns_the_best_candidate_marked(kept: list[Solution], answer: str) -> None:
    result = await asolve(QUESTION, Insists(kept=tuple(kept)), client=twelve(), budget=Budget(tokens=6))
    assert (result.answer, result.budget_exhausted) == (answer, True)
    assert result.selection == "best candidate when the budget was spent"
    assert result.usage.completion == 6


@pytest.mark.parametrize("budget", [None, Budget(tokens=100), Budget(seconds=100.0)])
async def test_a_budget_that_is_not_spent_changes_nothing(budget: Budget | None) -> None:
    result = await asolve(QUESTION, "single", client=twelve(), budget=budget)
    assert (result.answer, result.budget_exhausted, result.duration_s) == ("The answer is 12.", False, 0.04)


async def test_seconds_are_virtual_on_a_scripted_client() -> None:
    client = ScriptedClient(lambda prompt: "word " * 500, seconds_per_token=0.5)
    result = await asolve(QUESTION, "self_consistency", client=client, budget=Budget(seconds=3.0))
    assert (result.budget_exhausted, result.duration_s, result.engine.steps) == (True, 3.0, 6)


async def test_a_run_that_an_outer_budget_ended_is_marked_too() -> None:
    client = twelve()
    with open_run(meter=Meter(Budget(tokens=6), client.clock())):
        result = await asolve(QUESTION, Insists(kept=(Solution("a"),)), client=client)
    assert (result.answer, result.budget_exhausted) == ("a", True)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("k")])
async def test_any_failure_is_on_the_record_and_raised_as_it_is(error: Exception) -> None:
    def fails(prompt: Prompt) -> str:
        raise error

    events: list[Any] = []
    with pytest.raises(type(error)) as raised:
        await asolve(QUESTION, "best_of_n", client=ScriptedClient(fails), sinks=[events.append])
    assert raised.value is error
    assert (events[-1].event, events[-1].error) == ("run_failed", type(error).__name__)


async def test_concurrent_runs_on_one_client_keep_separate_accounts() -> None:
    client, results = ScriptedClient(by_seed), dict[int, Result]()

    async def run(seed: int, budget: Budget | None) -> None:
        results[seed] = await asolve(QUESTION, "single", client=client, seed=seed, budget=budget)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, 4, None)
        tasks.start_soon(run, 9, Budget(tokens=3))
    assert [results[seed].usage.completion for seed in (4, 9)] == [7, 3]
    assert [results[seed].budget_exhausted for seed in (4, 9)] == [False, True]


def test_solve_needs_no_event_loop() -> None:
    result = solve(QUESTION, client=twelve(), n=3)
    assert (result.answer, result.optimizer) == ("12", "self_consistency")
