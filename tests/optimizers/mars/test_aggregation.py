"""Each way to make more of the solutions: what it writes, from what, and how much of it at once."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from optillm_local import Mars, Prompt, Result, ScriptedClient, asolve
from optillm_local.core.errors import ClientError
from optillm_local.core.events import Event
from optillm_local.optimizers.mars import Aggregator, Draft, Team, aggregation, register_aggregator

STEPS = 10
QUESTION = Prompt.of("What is 3 * 4?", seed=3, max_tokens=5000)


def says(answer: object) -> str:
    return "so " * (STEPS - 3) + f"Final answer: {answer}"


def solution(prompt: Prompt) -> str:
    """Agents explore 0, 1, 2, 1 and so on; what is written from them says how many others were read."""
    purpose, agent = (prompt.log_tag or "").split(" agent-")
    if purpose == "explore":
        return says(int(agent) if int(agent) < 3 else 1)
    if purpose == "improve" or "Reviews:" in prompt.messages[-1].content:
        return says(f"{prompt.sampling.seed}")
    return says(100 + prompt.messages[-1].content.count("Solution "))


async def aggregated(
    method: str,
    worth: Callable[[str], float] = lambda text: 0.1,
    say: Callable[[Prompt], str] = solution,
    **options: Any,
) -> tuple[Result, ScriptedClient, list[Any]]:
    """A run with read verdicts in which nothing but the aggregation follows the exploration."""

    def choices(prompt: Prompt, labels: Sequence[str]) -> dict[str, float]:
        yes = worth([m.content for m in prompt.messages if m.role == "assistant"][-1])
        return {"Yes": yes, "No": 1 - yes}

    client = ScriptedClient(say, choices=choices, seconds_per_token=1.0)
    events: list[Event] = []
    how = {"agents": 4, "verification": "read", "max_iterations": 0, "enable_aggregation": True} | options
    mars = Mars(aggregation=method, **how)
    return await asolve(QUESTION, mars, client=client, sinks=[events.append]), client, events


def asked_to_aggregate(client: ScriptedClient) -> list[str]:
    return [p.messages[-1].content for p in client.prompts if (p.log_tag or "").startswith("aggregate")]


def stated(text: str) -> float:
    found = re.search(r"Final answer: (\d+)", text)
    return int(found[1]) / 10 if found else 0.0


async def test_rsa_makes_every_member_of_a_loop_at_once_from_a_few_of_the_last() -> None:
    result, client, events = await aggregated("rsa", aggregation_loops=2, aggregation_population_size=5)
    asked = asked_to_aggregate(client)
    assert len(asked) == 10 and all(text.count("Solution ") == 3 for text in asked)
    assert result.duration_s <= STEPS + 2 * STEPS + 2
    [over] = [event for event in events if event.event == "solutions_aggregated"]
    assert over.method == "rsa" and over.result_solution_id.startswith("rsa-2.")
    assert (result.answer, result.selection) == ("103", "nothing is verified; rsa of 4 agents' solutions")


async def test_members_of_the_same_sources_differ_in_the_approach_at_the_end() -> None:
    _, client, _ = await aggregated("rsa", agents=3, aggregation_loops=1)
    asked = asked_to_aggregate(client)
    assert len(asked) == 6 and len(set(asked)) == 3
    assert len({text.partition("and the answer.")[0] for text in asked}) == 1


async def test_a_member_that_fails_is_left_out() -> None:
    def fails(prompt: Prompt) -> str:
        if prompt.log_tag == "aggregate agent-1":
            raise ClientError("the wire broke")
        return solution(prompt)

    result, _, _ = await aggregated("rsa", say=fails, aggregation_loops=2, aggregation_population_size=4)
    made = [one.id for one in result.solutions if one.phase == "aggregated"]
    assert sorted(made) == ["rsa-1.0", "rsa-1.2", "rsa-1.3", "rsa-2.0", "rsa-2.2", "rsa-2.3"]


@pytest.mark.parametrize(("method", "answer"), [("majority", "1"), ("weighted_majority", "2"), ("best_of_n", "2")])
async def test_votes_write_nothing_and_pick_one_of_the_pool(method: str, answer: str) -> None:
    def worth(text: str) -> float:
        return 0.45 if text.endswith(": 2") else 0.0

    def unsure(prompt: Prompt) -> str:
        return solution(prompt).replace(
            ": 1", ": 1" if method != "weighted_majority" else f": {prompt.sampling.seed}"
        )

    result, client, events = await aggregated(method, worth, say=unsure)
    assert asked_to_aggregate(client) == []
    assert result.answer == answer and result.selection == f"nothing is verified; {method} of 4 solutions"
    kinds = [event.event for event in events]
    assert kinds.index("aggregation_started") > max(n for n, kind in enumerate(kinds) if kind == "verdict_read")


async def test_experts_are_told_with_weights_that_sum_to_one() -> None:
    result, client, _ = await aggregated("mixture_of_experts", stated, aggregation_selection_size=2)
    [asked] = asked_to_aggregate(client)
    weights = re.findall(r"\(expert: (\w+), weight (0\.\d\d)\):", asked)
    assert {name for name, _ in weights} <= {"steps", "backwards", "example", "constraints"} and len(weights) == 2
    assert sum(float(weight) for _, weight in weights) == pytest.approx(1, abs=0.011)
    assert result.answer == "102"


@pytest.mark.parametrize("layers", [1, 3])
async def test_a_mixture_of_agents_has_layers_and_one_agent_writes_the_last(layers: int) -> None:
    result, client, _ = await aggregated("mixture_of_agents", aggregation_loops=layers)
    assert len(asked_to_aggregate(client)) == 4 * (layers - 1) + 1
    assert result.duration_s <= STEPS + layers * STEPS + 2
    assert (result.solution.id, result.answer) == ("mixture", "104")


async def test_a_tree_search_expands_several_leaves_together_and_returns_the_best() -> None:
    def worth(text: str) -> float:
        return 0.3 + stated(text) % 1 / 10

    result, client, _ = await aggregated("mcts", worth, aggregation_loops=2, aggregation_selection_size=3)
    made = [one for one in result.solutions if one.phase == "aggregated"]
    assert len(made) == 6 and all(one.parents for one in made)
    assert result.duration_s <= STEPS + 2 + 2 * (STEPS + 1) + 2
    assert client.peak_concurrency >= 3 and result.selection == "nothing is verified; mcts of 4 agents' solutions"


@pytest.fixture
def _shortest() -> Iterator[None]:
    @register_aggregator
    class Shortest(Aggregator):
        name = "shortest"
        needs_verdicts = False

        async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
            return [min(pool, key=lambda draft: (len(draft.solution.reasoning), draft.author))]

    yield
    del aggregation._registered["shortest"]


@pytest.mark.usefixtures("_shortest")
async def test_a_strategy_of_the_program_is_chosen_by_name() -> None:
    result, _, _ = await aggregated("shortest")
    assert (result.answer, result.selection) == ("0", "nothing is verified; shortest of 4 solutions")


def test_an_unknown_strategy_is_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="Did you mean 'majority'"):
        aggregation.find("majorety")


async def test_without_a_single_member_the_run_goes_on() -> None:
    def fails(prompt: Prompt) -> str:
        if (prompt.log_tag or "").startswith("aggregate"):
            raise ClientError("the wire broke")
        return solution(prompt)

    for method in ("rsa", "mixture_of_agents", "mixture_of_experts"):
        result, _, _ = await aggregated(method, say=fails)
        assert result.solution.metadata["mars"]["selection_method"] == "synthesized"
        assert "written" in str(result.solution.metadata["mars"]["failures"])
