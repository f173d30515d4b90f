"""Searches over steps go on from the beginnings that score well, and continue the model's own tokens."""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from optillm_local import Message, Prompt, ScriptedClient, asolve
from optillm_local.clients import Reply
from optillm_local.confidence import AskedOf, PCorrect
from optillm_local.core.errors import NoSolutions
from optillm_local.optimizers.beam_search import BeamSearch
from optillm_local.optimizers.draft import Draft
from optillm_local.optimizers.particle_filtering import ParticleFiltering
from optillm_local.optimizers.steps import StepSearch, Trace

QUESTION = Prompt.of([Message("system", "Be brief."), Message("user", "Spell it.")], seed=0)
SEARCHES = [BeamSearch(beam_width=2, expansion=3), ParticleFiltering(n=6)]
WORD = "abc"


def so_far(prompt: Prompt) -> str:
    return prompt.messages[-1].content if prompt.messages[-1].role == "assistant" else ""


def letters(prompt: Prompt) -> str:
    """The next letter, drawn by the seed; each step is one, of two tokens, and the third is the last."""
    letter = WORD[(prompt.sampling.seed or 0) * 7919 % 9973 % 3]
    return f"letter {letter}" + ("" if so_far(prompt).count("letter") == 2 else "\n\nmore")


def likes_the_right_ones(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """P(Yes) grows with the letters that are right."""
    spelled = prompt.messages[-2].content.split()[1::2]
    p = (1 + sum(a == b for a, b in zip(spelled, WORD, strict=False))) / 5
    return {"Yes": p, "No": 1 - p}


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
async def test_good_beginnings_are_written_on(search: StepSearch) -> None:
    client = ScriptedClient(letters, choices=likes_the_right_ones)
    best = await search.optimize(QUESTION, client)
    assert best.answer == "letter a\n\nletter b\n\nletter c" and best.verification_score == 0.8
    assert best.metadata["selection"].startswith("highest P(correct) of ")


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
async def test_a_round_takes_a_step_and_a_read_however_many_are_written(search: StepSearch) -> None:
    client = ScriptedClient(letters, choices=likes_the_right_ones, seconds_per_token=1.0)
    await search.optimize(QUESTION, client)
    assert client.clock() == (3 + 1) + (3 + 1) + (2 + 1)  # the token that ends a step is decoded too
    assert client.peak_concurrency == 6


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
async def test_a_step_goes_on_from_the_tokens_of_those_before(search: StepSearch) -> None:
    client = ScriptedClient(letters, choices=likes_the_right_ones)
    await search.optimize(QUESTION, client)
    for prompt in client.prompts:
        assert prompt.messages[:2] == QUESTION.messages
        assert all(
            client.decode(one.token_ids) == one.content for one in prompt.messages if one.role == "assistant"
        )
    steps = [prompt for prompt in client.prompts if prompt.log_tag == "step"]
    assert {len(prompt.messages) for prompt in steps} == {2, 3}
    assert {prompt.sampling.temperature for prompt in steps} == {0.8}


@pytest.mark.parametrize("options", [{"step_tokens": 2}, {"step_tokens": 2, "max_steps": 3}])
async def test_a_step_may_end_at_a_number_of_tokens(options: dict[str, Any]) -> None:
    words = ["one", "two", "three", "four", "five"]
    client = ScriptedClient(lambda prompt: " " + " ".join(words[len(so_far(prompt).split()) :]))
    best = await BeamSearch(beam_width=1, expansion=1, **options).optimize(QUESTION, client)
    assert best.answer == "one two three four five"
    assert [len(so_far(p).split()) for p in client.prompts if p.log_tag == "step"] == [0, 2, 4]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
async def test_an_answer_ends_at_max_tokens_and_the_last_step_is_all_the_rest(search: StepSearch) -> None:
    client = ScriptedClient(lambda prompt: "on and\n\non")
    best = await search.optimize(QUESTION.but(max_tokens=8), client)
    assert len(best.answer.split()) <= 8
    best = await type(search)(max_steps=2).optimize(QUESTION, client)
    assert best.answer == "on and\n\non and\n\non"


@pytest.mark.parametrize(
    "search", [BeamSearch(beam_width=1, expansion=2), ParticleFiltering(n=2)], ids=lambda one: one.name
)
async def test_a_finished_answer_is_not_lost_to_better_beginnings_that_end_badly(search: StepSearch) -> None:
    def says(prompt: Prompt) -> str:
        if so_far(prompt):
            return "then bad"
        return ["good", "great\n\nmore"][(prompt.sampling.seed or 0) % 2]

    def values(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        p = {"good": 0.4, "great": 1.0, "bad": 0.1}[prompt.messages[-2].content.split()[-1]]
        return {"Yes": p, "No": 1 - p}

    best = await search.optimize(QUESTION.but(seed=1), ScriptedClient(says, choices=values))
    assert (best.answer, best.verification_score) == ("good", 0.4)


def traces(*scores: float) -> list[Trace]:
    draft = Draft.of(QUESTION, ScriptedClient([]))
    return [Trace(draft, place, score) for place, score in enumerate(scores)]


def test_particles_multiply_by_the_odds_of_their_scores() -> None:
    drawn = ParticleFiltering(n=8).select(traces(0.75, 0.5, 0.0, math.nan), Random(0))
    assert [trace.place for trace in drawn] == [0] * 6 + [1] * 2
    assert {trace.log_weight for trace in drawn} == {0}


def test_weights_that_are_even_enough_go_on_to_the_next_round() -> None:
    search, particles = ParticleFiltering(n=3, resample_below=0.5), traces(0.6, 0.5, 0.4)
    once = search.select(particles, Random(0))
    twice = search.select(once, Random(0))
    assert [trace.place for trace in twice] == [0, 1, 2]
    assert [trace.log_weight for trace in twice] == pytest.approx([2 * math.log(1.5), 0, 2 * math.log(2 / 3)])


@pytest.mark.parametrize("search", SEARCHES, ids=lambda one: one.name)
async def test_silence_is_no_solution(search: StepSearch) -> None:
    with pytest.raises(NoSolutions):
        await search.optimize(QUESTION, ScriptedClient(lambda prompt: ""))


@pytest.mark.parametrize("kind", [BeamSearch, ParticleFiltering])
@pytest.mark.parametrize("scorer", ["logprob", "confidence", "pairwise"])
async def test_any_scorer_will_do(kind: type[StepSearch], scorer: str) -> None:
    def sure_of(prompt: Prompt) -> Reply:
        said = letters(prompt)
        return Reply(said, -0.1 if "a" in said.split("\n")[0][-1] else -3.0)

    best = await kind(scorer=scorer).optimize(QUESTION, ScriptedClient(sure_of))
    assert best.answer.count("letter") == 3
    assert scorer == "pairwise" or best.answer == "letter a\n\nletter a\n\nletter a"


async def test_a_reward_model_may_be_a_second_client() -> None:
    judge = ScriptedClient([], choices=likes_the_right_ones)
    client = ScriptedClient(letters)
    scorer = AskedOf(client=judge, scorer=PCorrect(template="scorers/step"))
    result = await asolve(QUESTION, BeamSearch(scorer=scorer), client=client)
    assert result.answer == "letter a\n\nletter b\n\nletter c"
    assert {prompt.log_tag for prompt in judge.prompts} == {"verdict"}
    assert not any(one.token_ids for prompt in judge.prompts for one in prompt.messages)
    assert result.options["scorer"]["client"] == "scripted"
    assert [prompt.log_tag for prompt in client.prompts].count("verdict") == 0
