"""Best of n returns the candidate that judges best, and judges each the moment it is finished."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.errors import EngineDead, InvalidConfiguration
from optillm_local.core.span import open_run
from optillm_local.optimizers.best_of_n import BestOfN

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


def judge(**yes: float) -> Any:
    """P(Yes) by a word of the candidate."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        said = prompt.messages[-2].content
        return next({"Yes": p, "No": 1 - p} for word, p in yes.items() if word in said)

    return choices


async def test_the_verifier_picks_the_one_it_judges_best() -> None:
    client = ScriptedClient(
        ["It is ten.", "It is twelve.", "It is two."], choices=judge(ten=0.3, twelve=0.9, two=0.1)
    )
    with open_run() as run:
        best = await BestOfN(n=3).optimize(QUESTION, client)
    assert (best.answer, best.agent_id, best.verification_score) == ("It is twelve.", "agent-1", 0.9)
    assert best.metadata["selection"] == "highest P(correct) of 3: 0.900"
    assert sorted(one.verification_score for one in run.solutions) == [0.1, 0.3, 0.9]


@pytest.mark.parametrize(("scorer", "by"), [("logprob", "mean log-probability"), ("confidence", "confidence")])
@pytest.mark.parametrize("logprobs", [None, 0, 5])
async def test_likelihood_and_confidence_need_no_verdict(scorer: str, by: str, logprobs: int | None) -> None:
    client = ScriptedClient([Reply("unsure", -2.0), Reply("sure", -0.01), Reply("fair", -0.5)])
    best = await BestOfN(n=3, scorer=scorer).optimize(QUESTION.but(logprobs=logprobs), client)
    assert best.answer == "sure" and math.isfinite(best.verification_score)
    assert best.metadata["selection"].startswith(f"highest {by} of 3: ")
    assert len(client.prompts) == 3


async def test_of_equal_verdicts_the_likelier_wins_and_then_the_first() -> None:
    replies = [Reply("a", -2.0), Reply("b", -0.5), Reply("c", -0.5)]
    assert (await BestOfN(n=3).optimize(QUESTION, ScriptedClient(replies))).answer == "b"


def test_a_score_that_is_enough_needs_a_scorer_of_single_answers() -> None:
    with pytest.raises(InvalidConfiguration, match="pairwise compares answers"):
        create("best_of_n", scorer="tournament", enough=0.5)


async def test_what_says_nothing_or_only_thinks_is_no_match_for_an_answer() -> None:
    client = ScriptedClient(["", "<think>ten or twelve", "12"], choices=judge(twelve=0.9, **{"12": 0.1}))
    best = await BestOfN(n=3).optimize(QUESTION, client)
    assert (best.answer, best.metadata["selection"]) == ("12", "highest P(correct) of 1: 0.100; 1 not judged")


async def test_each_is_judged_while_the_others_still_decode() -> None:
    judged_at = {}

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        judged_at[prompt.messages[-2].content.split()[0]] = client.clock()
        return {"Yes": 0.5, "No": 0.5}

    script = ["short one", "long" + " word" * 9, "middle" + " word" * 4]
    client = ScriptedClient(script, choices=choices, seconds_per_token=1.0)
    await BestOfN(n=3).optimize(QUESTION, client)
    assert judged_at == {"short": 3.0, "middle": 6.0, "long": 11.0}
    assert client.clock() == 11.0


async def test_the_verdict_goes_on_from_the_candidates_own_tokens() -> None:
    client = ScriptedClient(["It is 12."])
    await BestOfN(n=1).optimize(QUESTION, client)
    asked, (candidate, verdict) = QUESTION.messages, client.prompts[-1].messages[1:]
    assert client.prompts[-1].messages[:1] == asked
    assert (candidate.role, candidate.content, len(candidate.token_ids)) == ("assistant", "It is 12.", 3)
    assert verdict == Message("user", verdict.content) and "Yes or No" in verdict.content
    assert client.prompts[-1].log_tag == "verdict"


async def test_a_judge_that_fails_fails_the_run_with_its_own_error_and_ends_the_rest() -> None:
    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        raise EngineDead("gone")

    client = ScriptedClient(["done"] + ["word " * 500] * 2, choices=choices)
    with pytest.raises(EngineDead, match="gone"):
        await BestOfN(n=3).optimize(QUESTION, client)
    assert (client.stats().running, client.stats().steps < 10) == (0, True)


async def test_a_budget_that_ends_midway_returns_the_best_judged_so_far_marked() -> None:
    client = ScriptedClient(["done"] + ["word " * 500] * 2, choices={"Yes": 0.2, "No": 0.8})
    result = await asolve(QUESTION, BestOfN(n=3), client=client, budget=Budget(tokens=20))
    assert (result.answer, result.solution.verification_score, result.budget_exhausted) == ("done", 0.2, True)
    assert 20 <= result.usage.completion <= 20 + 3
    assert result.usage.discarded == result.usage.completion - 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles tokens of the same step, on purpose
async def test_of_candidates_that_nobody_could_judge_a_whole_one_wins() -> None:
    client = ScriptedClient([Reply("word " * 500, -0.01), Reply("done and dusted", -2.0)])
    result = await asolve(QUESTION, BestOfN(n=2), client=client, budget=Budget(tokens=6))
    assert (result.answer, result.budget_exhausted) == ("done and dusted", True)
    assert result.selection == "the likeliest of 2, none of them judged"
