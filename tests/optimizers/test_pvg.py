"""The prover-verifier game scores helpful and sneaky answers alike, and returns a helpful one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from optillm_local import Prompt, ScriptedClient, create
from optillm_local.core.errors import InvalidConfiguration, NoSolutions
from optillm_local.core.span import open_run
from optillm_local.optimizers.pvg import PVG

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
STEPS = 4


def says(prompt: Prompt) -> str:
    """Each prover its role and its temperature; the new wording is as long."""
    return f"I am {prompt.log_tag} {prompt.sampling.temperature:g}."


def grades(**by_word: float) -> Any:
    """All mass on the lowest or highest grade, as likely as the word in the answer says."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        high = next(p for word, p in by_word.items() if word in prompt.messages[-2].content)
        return {options[0]: 1 - high, options[-1]: high}

    return choices


async def test_a_sneaky_answer_never_wins_however_convincing_it_is() -> None:
    client = ScriptedClient(says, choices=grades(sneaky=0.9, helpful=0.5))
    with open_run() as run:
        best = await PVG().optimize(QUESTION, client)
    assert best.answer == "I am helpful 0.7." and best.verification_score == pytest.approx(0.5)
    assert best.metadata["selection"] == "highest expected grade of 6: 0.500"
    assert {one.answer for one in run.solutions} == {"I am helpful 0.7.", "I am helpful 0.6."}


@pytest.mark.parametrize(
    ("helpful", "sneaky", "rounds", "separation"),
    [(0.9, 0.1, 2, 1.0), (0.1, 0.9, 2, 0.0), (0.5, 0.5, 3, 0.5), (0.9, 0.1, 1, math.nan)],
)
async def test_how_well_the_verifier_tells_the_roles_apart_is_told(
    helpful: float, sneaky: float, rounds: int, separation: float
) -> None:
    client = ScriptedClient(says, choices=grades(sneaky=sneaky, helpful=helpful))
    best = await PVG(rounds=rounds).optimize(QUESTION, client)
    assert best.metadata["separation"] == pytest.approx(separation, nan_ok=True)


async def test_two_rounds_take_three_generations_and_two_reads() -> None:
    client = ScriptedClient(says, seconds_per_token=1.0)
    await PVG(scorer="verifier").optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 3 * STEPS + 2
    tags = [prompt.log_tag for prompt in client.prompts]
    assert [tags.count(tag) for tag in ("helpful", "sneaky", "refine", "verdict")] == [6, 3, 1, 9]


async def test_the_verifier_sees_the_question_and_an_answer_and_no_role() -> None:
    client = ScriptedClient(says)
    await PVG(scorer="verifier").optimize(QUESTION, client)
    for prompt in client.prompts:
        if prompt.log_tag == "verdict":
            question, answer, _ = prompt.messages
            assert question == QUESTION.messages[0] and answer.content.startswith("I am ")


async def test_the_next_round_asks_in_words_that_know_the_best_answer_and_the_best_lie() -> None:
    client = ScriptedClient(says, choices=grades(sneaky=0.9, helpful=0.5))
    await PVG().optimize(QUESTION, client)
    [refine] = [prompt for prompt in client.prompts if prompt.log_tag == "refine"]
    assert "I am helpful 0.7." in refine.question and "I am sneaky 0.7." in refine.question
    second = [prompt for prompt in client.prompts if prompt.sampling.temperature == 0.6]
    assert len(second) == 3 and all("I am refine 0.5." in prompt.question for prompt in second)


@pytest.mark.parametrize(("rounds", "coolest"), [(1, 0.7), (3, 0.5), (7, 0.2)])
async def test_each_round_is_cooler_down_to_a_floor(rounds: int, coolest: float) -> None:
    client = ScriptedClient(says)
    await PVG(rounds=rounds).optimize(QUESTION, client)
    drawn = [prompt.sampling.temperature for prompt in client.prompts if prompt.log_tag == "helpful"]
    assert (len(drawn), drawn[0], drawn[-1]) == (3 * rounds, 0.7, pytest.approx(coolest))


async def test_a_score_that_is_enough_ends_the_game_and_what_still_runs() -> None:
    def answers(prompt: Prompt) -> str:
        return "word " * 500 if prompt.log_tag == "sneaky" else "I am helpful."

    client = ScriptedClient(answers, choices=grades(helpful=0.9))
    best = await PVG(enough=0.8).optimize(QUESTION, client)
    assert (best.answer, client.stats().steps) == ("I am helpful.", 4)


async def test_without_a_helpful_answer_there_is_none() -> None:
    client = ScriptedClient(lambda prompt: "I am." if prompt.log_tag == "sneaky" else "")
    with pytest.raises(NoSolutions, match="wrote nothing"):
        await PVG().optimize(QUESTION, client)


async def test_an_empty_wording_leaves_the_question_as_it_is() -> None:
    client = ScriptedClient(lambda prompt: "" if prompt.log_tag == "refine" else "12")
    await PVG().optimize(QUESTION, client)
    assert len({p.messages for p in client.prompts if p.log_tag == "helpful"}) == 1


def test_the_verifier_must_score_answers_by_themselves() -> None:
    with pytest.raises(InvalidConfiguration, match="compares candidates"):
        create("pvg", scorer="tournament")
