"""Self-consistency returns what most paths say, and stops as soon as that is settled."""

import math
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optillm_local import Budget, Prompt, ScriptedClient, Solution, asolve
from optillm_local.answers import Tally
from optillm_local.clients import Reply
from optillm_local.core.span import open_run
from optillm_local.optimizers.self_consistency import SelfConsistency

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
PROSE = "I thought about it for quite a while and in the end did not come to any conclusion about it at all"


def path(answer: object, words: int = 4) -> str:
    """A path of so many words."""
    return "Hm. " * (words - 4) + f"The answer is {answer}."


async def elect(script: list[Any], **options: Any) -> tuple[Solution, ScriptedClient]:
    client = ScriptedClient(script)
    return await SelfConsistency(n=len(script), **options).optimize(QUESTION, client), client


async def test_the_answer_is_what_most_paths_reach() -> None:
    best, _ = await elect([path(7), path(12), path(12), path(9), path(12)])
    assert (best.answer, best.verification_score, best.metadata["share"]) == ("12", 0.6, 0.6)
    assert best.metadata["selection"] == "3 of 5 paths agree"


async def test_equal_answers_written_differently_count_together() -> None:
    best, _ = await elect([path("0.5"), path("7"), path("7"), path("1/2"), path("0.50")])
    assert best.metadata["selection"] == "3 of 5 paths agree"
    assert best.answer in ("0.5", "1/2", "0.50")


async def test_the_answer_is_worded_as_most_voters_do_and_shown_by_the_likeliest() -> None:
    best, _ = await elect([Reply(path("0.5"), -0.1), Reply(path("1/2"), -0.5), Reply(path("1/2"), -0.4)])
    assert (best.answer, best.agent_id) == ("1/2", "agent-0")


async def test_every_path_is_kept_with_the_share_of_its_answer() -> None:
    with open_run() as run:
        await elect([path(7), path(12), path(12), path(7), PROSE])
    shares = {one.agent_id: one.verification_score for one in run.solutions}
    assert [shares[f"agent-{i}"] for i in range(4)] == [0.5] * 4 and shares["agent-4"] != shares["agent-4"]


async def test_a_decided_vote_aborts_the_rest_and_counts_it_as_discarded() -> None:
    script = [path(12), path(7, words=500), path(12), path(9, words=500), path(12)]
    result = await asolve(QUESTION, SelfConsistency(n=5), client=ScriptedClient(script))
    assert (result.answer, result.selection) == ("12", "3 of 3 paths agree; 2 aborted once the vote was decided")
    assert result.usage.completion - result.usage.discarded == 3 * 4
    assert 2 * 4 <= result.usage.discarded <= 2 * 6
    assert not result.budget_exhausted and len(result.solutions) == 3


@pytest.mark.parametrize(
    "answers",
    [(7, 8, 9, 10, 11), (7, 7, 8, 8, 9), ("7", "7", "8", "8", "7")],
)
async def test_an_undecided_vote_never_stops_early(answers: tuple[object, ...]) -> None:
    best, client = await elect([path(answer, words=4 + i) for i, answer in enumerate(answers)])
    assert client.stats().steps == 8
    assert "aborted" not in best.metadata["selection"]


async def test_a_tie_goes_to_the_answer_that_was_reached_first() -> None:
    best, _ = await elect([path(7, words=5), path(7, words=5), path(12, words=4), path(12, words=5)])
    assert best.answer == "12"


@given(st.permutations(range(4, 9)), st.lists(st.sampled_from("789"), min_size=5, max_size=5))
@settings(max_examples=10, deadline=None)
def test_stopping_early_gives_the_answer_that_waiting_would(lengths: list[int], answers: list[str]) -> None:
    script = [path(answer, words) for answer, words in zip(answers, lengths, strict=True)]
    best, _ = anyio.run(elect, script)
    in_time = [int(answer) for _, answer in sorted(zip(lengths, answers, strict=True))]
    assert int(best.answer) == Tally.of(in_time, [1.0] * 5).winner


async def test_if_nobody_states_an_answer_the_likeliest_text_is_it() -> None:
    best, _ = await elect([Reply(PROSE, -0.9), Reply(PROSE + ", sadly", -0.1), Reply(PROSE, -0.5)])
    assert best.answer == PROSE + ", sadly"
    assert best.metadata["selection"] == "none of 3 paths states an answer; the likeliest text"


async def test_a_path_that_states_no_answer_abstains() -> None:
    best, _ = await elect([PROSE, PROSE, path(12)])
    assert (best.answer, best.metadata["selection"]) == ("12", "1 of 3 paths agree")


@pytest.mark.parametrize("logprobs", [None, 0])
@pytest.mark.parametrize(("weights", "answer"), [("uniform", "7"), ("probability", "12")])
async def test_a_path_may_weigh_as_much_as_it_is_likely(weights: str, answer: str, logprobs: int | None) -> None:
    client = ScriptedClient([Reply(path(7), -3.0), Reply(path(7), -3.0), Reply(path(12), -0.1)])
    prompt = QUESTION.but(logprobs=logprobs)
    assert (await SelfConsistency(n=3, weights=weights).optimize(prompt, client)).answer == answer


@pytest.mark.parametrize(("likely", "heard"), [(1.0, 4), (0.9, 5), (0.5, 8)])
async def test_unlikely_paths_take_longer_to_make_a_majority_certain(likely: float, heard: int) -> None:
    script = [Reply(path(12, words=4 + i), math.log(likely)) for i in range(20)]
    best, _ = await elect(script, weights="probability", stop="beta")
    assert best.metadata["selection"].startswith(f"{heard} of {heard} paths agree")


async def test_a_budget_that_ends_midway_counts_the_whole_paths_and_says_so() -> None:
    script = [path(12), path(7, words=500), path(9, words=500)]
    result = await asolve(QUESTION, SelfConsistency(n=3), client=ScriptedClient(script), budget=Budget(tokens=30))
    assert (result.answer, result.budget_exhausted) == ("12", True)
    assert result.selection == "1 of 1 paths agree; 2 aborted once the budget was spent"


async def test_a_budget_that_ends_before_any_path_still_gives_what_was_said() -> None:
    script = [path(12, words=500), path(7, words=500)]
    result = await asolve(QUESTION, SelfConsistency(n=2), client=ScriptedClient(script), budget=Budget(tokens=6))
    assert result.budget_exhausted and result.answer.startswith("Hm. Hm.")
