"""Recursive self-aggregation rewrites a population from random subsets of itself, then votes."""

import re
from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Prompt, ScriptedClient, asolve, create
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.span import open_run
from optillm_local.optimizers.rsa import RecursiveSelfAggregation

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


def says(prompt: Prompt) -> str:
    return f"Draw {prompt.sampling.seed}. The answer is 12."


def seeds(generation: int) -> list[int | None]:
    name = "aggregate" if generation else "propose"
    return [QUESTION.step(name, generation, number).sampling.seed for number in range(6)]


def read_by(prompt: Prompt) -> list[str]:
    return re.findall(r"Draw (\d+)", prompt.question)


async def test_every_new_member_reads_a_random_subset_of_the_generation_before() -> None:
    client = ScriptedClient(says)
    best = await RecursiveSelfAggregation(population=6, subset=3, loops=2).optimize(QUESTION, client)
    for generation in range(3):
        later = [prompt for prompt in client.prompts if prompt.sampling.seed in seeds(generation)]
        assert {prompt.sampling.temperature for prompt in later} == {0.7 if generation else 1.0}
        if generation:
            assert all(len(set(read_by(prompt))) == 3 for prompt in later)
            assert {int(seed) for prompt in later for seed in read_by(prompt)} <= set(seeds(generation - 1))
            assert len({tuple(read_by(prompt)) for prompt in later}) > 1
    assert (best.answer, best.metadata["selection"]) == ("12", "6 of 6 paths agree")


@pytest.mark.parametrize("subset", [1, 2, 3])
async def test_a_member_that_nobody_reads_is_not_written(subset: int) -> None:
    client = ScriptedClient(says)
    await RecursiveSelfAggregation(subset=subset, loops=4).optimize(QUESTION, client)
    read = {int(seed) for prompt in client.prompts for seed in read_by(prompt)}
    assert read | set(seeds(4)) == {prompt.sampling.seed for prompt in client.prompts}


@pytest.mark.parametrize(("subset", "said"), [(1, "it may be wrong"), (4, "each may be wrong")])
async def test_a_subset_may_be_one_or_all(subset: int, said: str) -> None:
    client = ScriptedClient(says)
    await RecursiveSelfAggregation(population=4, subset=subset, loops=1).optimize(QUESTION, client)
    later = [prompt for prompt in client.prompts if prompt.log_tag == "aggregate"]
    assert all(len(read_by(prompt)) == subset and said in prompt.question for prompt in later)


async def test_a_member_is_written_once_its_own_sources_are_there() -> None:
    began: dict[int, float] = {}

    def slow(prompt: Prompt) -> str:
        began[prompt.sampling.seed or 0] = client.clock()
        is_slow = prompt.sampling.seed == seeds(0)[1]
        return "so " * (100 if is_slow else 0) + f"The answer is {prompt.sampling.seed}."

    client = ScriptedClient(slow, seconds_per_token=1.0)
    await RecursiveSelfAggregation(subset=2, loops=1).optimize(QUESTION, client)
    assert {began[seed or 0] > 100 for seed in seeds(1)} == {True, False}


async def test_a_decided_vote_aborts_what_is_still_written() -> None:
    late = seeds(1)[0]
    client = ScriptedClient(lambda prompt: "so " * (500 if prompt.sampling.seed == late else 0) + says(prompt))
    result = await asolve(QUESTION, RecursiveSelfAggregation(loops=1), client=client)
    assert result.selection == "5 of 5 paths agree; 1 aborted once the vote was decided"
    assert client.stats().steps < 50 and result.usage.discarded < 50


async def test_without_loops_it_is_a_vote() -> None:
    client = ScriptedClient(says)
    best = await RecursiveSelfAggregation(loops=0).optimize(QUESTION, client)
    assert (best.answer, best.temperature, len(client.prompts)) == ("12", 1.0, 6)


async def test_a_scorer_chooses_in_the_place_of_a_vote() -> None:
    favourite = QUESTION.step("aggregate", 1, 4).sampling.seed

    def verdict(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        p = 0.9 if f"Draw {favourite}." in prompt.messages[-2].content else 0.1
        return {"Yes": p, "No": 1 - p}

    client = ScriptedClient(says, choices=verdict)
    with open_run() as run:
        best = await RecursiveSelfAggregation(loops=1, scorer="verifier").optimize(QUESTION, client)
    assert best.agent_id == "agent-4" and best.metadata["selection"].startswith("highest P(correct) of 6")
    assert len(run.solutions) == len(client.prompts) - 6


def test_an_unknown_scorer_is_refused_by_name() -> None:
    with pytest.raises((InvalidConfiguration, ValueError), match="verifier"):
        RecursiveSelfAggregation(scorer="verifyer")


async def test_the_first_source_stands_in_for_a_member_that_says_nothing() -> None:
    client = ScriptedClient(lambda prompt: "" if prompt.log_tag == "aggregate" else says(prompt))
    assert (await RecursiveSelfAggregation().optimize(QUESTION, client)).answer == "12"


def test_a_subset_is_at_most_the_population() -> None:
    with pytest.raises(InvalidConfiguration, match="subset=9: must be at most population=4"):
        create("rsa", population=4, subset=9)
