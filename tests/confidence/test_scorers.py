"""Scorers: one protocol, whether the score is read, written about, compared or measured."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from optillm_local import Completion, Message, Prompt, ScriptedClient, TokenUsage, create
from optillm_local.clients import Reply
from optillm_local.confidence import (
    SCORERS,
    Levels,
    Lineup,
    PCorrect,
    Scorer,
    Tournament,
    scorer,
)
from optillm_local.confidence.verdict import LEVELS, expectation
from optillm_local.core.errors import EngineDead, InvalidConfiguration, RequestRejected
from optillm_local.optimizers.combine import Vote
from optillm_local.optimizers.pvg import PVG
from optillm_local.optimizers.single import Single

QUESTION = Prompt.of([Message("system", "Be exact."), Message("user", "What is 3 * 4?")], seed=0)
REVIEW = "I checked it."


def said(text: str, **about: Any) -> Completion:
    return Completion(
        **{"text": text, "token_ids": (1, 2), "finish_reason": "stop", "answer": text} | about, usage=TokenUsage()
    )


async def sampled(*replies: str | Reply) -> list[Completion]:
    """Completions with log-probabilities, in the order of the replies."""
    client = ScriptedClient(lambda prompt: replies[prompt.sampling.seed or 0])
    return await client.sample(QUESTION.but(logprobs=20), n=len(replies))


def yes(**by_word: float) -> Callable[[Prompt, Sequence[str]], Mapping[str, float]]:
    """P(Yes) by the first word that the last answer in the conversation, or the one before it, has."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        text = next(m.content for m in reversed(prompt.messages) if m.role == "assistant" and m.content != REVIEW)
        p = next(p for word, p in by_word.items() if word in text)
        return {"Yes": p, "No": 1 - p}

    return choices


def likes(word: str, *, first: float = 0.0) -> Callable[[Prompt, Sequence[str]], Mapping[str, float]]:
    """A reader of comparisons that wants the answer with `word`, and whatever is shown first a little."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        shown = re.split(r"Answer [AB1-9]:\n", "".join(m.content for m in prompt.messages))[1:]
        raw = [(word in text) + first * (place == 0) + 0.1 for place, text in enumerate(shown)]
        return {option: mass / sum(raw) for option, mass in zip(options, raw, strict=True)}

    return choices


# -- what holds for all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(
    "texts", [[], ["It is 12."], ["", " "], ["It is 12.", "", "7"], ["<think>never closed"] * 2]
)
async def test_every_scorer_has_a_number_for_every_candidate(name: str, texts: list[str]) -> None:
    client = ScriptedClient(lambda prompt: REVIEW)
    for given in (await sampled(*texts) if texts else [], [said(text) for text in texts]):
        scores = await scorer(name).score(QUESTION, given, client)
        assert len(scores) == len(texts) and all(isinstance(one, float) for one in scores)


@pytest.mark.parametrize("name", SCORERS)
async def test_every_call_of_a_scorer_keeps_the_conversation(name: str) -> None:
    client = ScriptedClient(lambda prompt: REVIEW)
    await scorer(name).score(QUESTION, await sampled("It is 12.", "It is 13."), client)
    for prompt in client.prompts:
        assert prompt.messages[0] == QUESTION.messages[0] and prompt.messages[1].content.startswith(
            "What is 3 * 4?"
        )


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *[("verifier", 1), ("levels", 1), ("pairwise", 1), ("tournament", 1), ("lineup", 1)],
        *[("review", 4), ("votes", 4), ("genselect", 4), ("logprob", 0), ("tail", 0)],
    ],
)
async def test_scores_of_all_candidates_take_as_long_as_one(name: str, steps: int) -> None:
    client = ScriptedClient(lambda prompt: REVIEW, seconds_per_token=1.0)
    await scorer(name).score(QUESTION, [said(f"It is {i}.") for i in range(6)], client)
    assert client.clock() == client.stats().steps == steps


@pytest.mark.parametrize("have", [None, 0, 5, 20])
@pytest.mark.parametrize("name", ["verifier", "logprob", "confidence"])
def test_a_prompt_is_sampled_with_the_log_probabilities_that_are_needed_and_no_fewer(
    name: str, have: int | None
) -> None:
    need = scorer(name).logprobs
    get = scorer(name).sampled(QUESTION.but(logprobs=have)).sampling
    assert get.logprobs == (0 if need == 0 and have is None else have)
    assert get.statistics == (need or None)


@pytest.mark.parametrize("name", ["verifier", "review", "levels", "pairwise", "lineup"])
async def test_a_failure_of_the_engine_is_raised_as_itself(name: str) -> None:
    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        raise EngineDead("gone")

    client = ScriptedClient(lambda prompt: REVIEW, choices=choices)
    with pytest.raises(EngineDead, match="gone"):
        await scorer(name).score(QUESTION, [said("a"), said("b")], client)


@pytest.mark.parametrize("name", ["verifier", "review", "levels", "pairwise", "tournament", "lineup", "genselect"])
async def test_what_does_not_fit_into_the_context_has_no_score(name: str) -> None:
    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        raise RequestRejected(field, "9000 tokens", "too long")

    given, client, field = (
        [said("12"), said("13")],
        ScriptedClient(lambda prompt: REVIEW, choices=choices),
        "messages",
    )
    assert all(math.isnan(score) for score in await scorer(name).score(QUESTION, given, client))
    field = "adapter"
    with pytest.raises(RequestRejected, match="adapter"):
        await scorer(name).score(QUESTION, given, client)


# -- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scores"), [("verifier", [0.9, 0.3]), ("review", [0.9, 0.3]), ("votes", [1.0, 0.0])]
)
async def test_p_correct_is_read_from_yes_and_no(name: str, scores: list[float]) -> None:
    client = ScriptedClient(lambda prompt: REVIEW, choices=yes(twelve=0.9, ten=0.3))
    assert await scorer(name).score(QUESTION, [said("twelve"), said("ten")], client) == pytest.approx(scores)


async def test_reviews_are_drawn_apart_and_their_verdicts_averaged() -> None:
    verdicts = itertools.cycle([0.2, 0.6, 1.0])
    client = ScriptedClient(
        lambda prompt: REVIEW, choices=lambda prompt, options: {"Yes": (p := next(verdicts)), "No": 1 - p}
    )
    [score] = await PCorrect(reviews=3, review_tokens=99).score(QUESTION, [said("twelve", seed=5)], client)
    assert score == pytest.approx(0.6)
    reviews = [prompt for prompt in client.prompts if prompt.log_tag == "review"]
    assert len({prompt.sampling.seed for prompt in reviews}) == 3
    assert {prompt.sampling.max_tokens for prompt in reviews} == {99}


async def test_a_candidate_that_was_cut_off_has_no_verdict_and_costs_nothing() -> None:
    client = ScriptedClient([])
    [score] = await PCorrect(reviews=2).score(QUESTION, [said("twel", finish_reason="abort")], client)
    assert math.isnan(score) and not client.prompts


async def test_an_unfinished_answer_is_asked_about_in_words_of_its_own() -> None:
    client = ScriptedClient([])
    await PCorrect(template="scorers/step").score(QUESTION, [said("3 * 4 is")], client)
    assert "so far" in client.prompts[0].question


@pytest.mark.parametrize(
    ("levels", "mean"), [([1, 0, 0], 0.0), ([0, 0, 1], 1.0), ([0.25, 0.5, 0.25], 0.5), ([0, 0.5, 0.5], 0.75)]
)
def test_a_grade_is_the_expected_level(levels: list[float], mean: float) -> None:
    assert expectation(levels) == mean


async def test_each_criterion_is_graded_apart_and_the_grades_averaged() -> None:
    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        assert list(options) == list(LEVELS)
        return {LEVELS[-1] if "right" in prompt.question else LEVELS[0]: 1.0}

    client = ScriptedClient([], choices=choices)
    assert await Levels(criteria=("right", "short")).score(QUESTION, [said("12")], client) == [0.5]
    assert len(client.prompts) == 2


# -- comparisons -------------------------------------------------------------------------------------------------

CANDIDATES = [said("ten"), said("eleven"), said("twelve"), said("thirteen"), said("fourteen")]


@pytest.mark.parametrize("comparing", [Tournament(), Tournament(pivots=2), Lineup(), Lineup(reviews=2)], ids=repr)
@pytest.mark.parametrize("word", ["ten", "eleven", "twelve", "thirteen"])
@pytest.mark.parametrize("first", [0.0, 0.8])
async def test_the_better_one_wins_wherever_it_is_shown(comparing: Scorer, word: str, first: float) -> None:
    client = ScriptedClient(lambda prompt: REVIEW, choices=likes(word, first=first))
    given = CANDIDATES[:4]
    scores = await comparing.score(QUESTION, given, client)
    assert given[max(range(4), key=scores.__getitem__)].text == word
    losers = [score for one, score in zip(given, scores, strict=True) if one.text != word]
    assert isinstance(comparing, Tournament) or max(losers) - min(losers) < 1e-9


@pytest.mark.parametrize(("pivots", "comparisons"), [(None, 10), (1, 4), (2, 7), (9, 10)])
async def test_a_tournament_reads_each_comparison_twice_with_the_places_swapped(
    pivots: int | None, comparisons: int
) -> None:
    client = ScriptedClient([], choices=likes("ten"))
    await Tournament(pivots=pivots).score(QUESTION, CANDIDATES, client)
    assert len(client.prompts) == 2 * comparisons


async def test_who_likes_the_first_place_only_finds_all_equal() -> None:
    for comparing in (Tournament(), Lineup()):
        scores = await comparing.score(QUESTION, CANDIDATES, ScriptedClient([], choices=likes("none", first=5)))
        assert max(scores) - min(scores) < 1e-9


async def test_equal_answers_share_a_choice_and_do_not_lose_by_it() -> None:
    given = [said("It is 12."), said("That makes 12."), said("Clearly 12.0."), said("It is 13.")]

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        shown = re.findall(r"Answer (\d):\n(.*)", prompt.question)
        return {number: 0.4 if "13" in text else 0.2 for number, text in shown}

    scores = await Lineup().score(QUESTION, given, ScriptedClient([], choices=choices))
    assert scores == pytest.approx([0.6, 0.6, 0.6, 0.4])


@pytest.mark.parametrize(("n", "shown"), [(5, 3), (12, 8), (9, 9)])
async def test_a_long_lineup_is_shown_in_stretches_in_which_everybody_has_every_place(n: int, shown: int) -> None:
    client = ScriptedClient([])
    await Lineup(shown=shown).score(QUESTION, [said(f"word-{chr(97 + i)}") for i in range(n)], client)
    places = [
        pair for prompt in client.prompts for pair in re.findall(r"Answer (\d):\n(word-\w)", prompt.question)
    ]
    assert len(client.prompts) == n and len(set(places)) == len(places) == n * shown


async def test_an_empty_candidate_is_not_shown() -> None:
    client = ScriptedClient([], choices=likes("ten"))
    scores = await Lineup().score(QUESTION, [said(""), said("ten"), said("\n"), said("eleven")], client)
    assert [math.isnan(score) for score in scores] == [True, False, True, False] and len(client.prompts) == 2


async def test_thinking_is_left_out_of_a_comparison() -> None:
    client = ScriptedClient([])
    thought = said("<think>secret</think>12", answer="12")
    for comparing in (Tournament(), Lineup()):
        await comparing.score(QUESTION, [thought, said("13")], client)
    assert not any("secret" in prompt.question for prompt in client.prompts)


# -- measures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, named in SCORERS.items() if named.kind.logprobs is not None])
async def test_the_surer_candidate_measures_higher(name: str) -> None:
    given = await sampled(*(Reply("word " * 9, logprob) for logprob in (-2.0, -0.01, -0.7)))
    scores = await scorer(name).score(QUESTION, given, ScriptedClient([]))
    assert scores[1] > scores[2] > scores[0]
    assert all(math.isnan(score) for score in await scorer(name).score(QUESTION, [said("12")], ScriptedClient([])))


# -- by name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("verifier", PCorrect()),
        ("votes", PCorrect(reviews=5, votes=True)),
        ({"name": "votes", "reviews": 3}, PCorrect(reviews=3, votes=True)),
        ({"name": "tournament", "pivots": "2"}, Tournament(pivots=2)),
        (Lineup(shown=4), Lineup(shown=4)),
    ],
)
def test_an_option_takes_a_name_a_mapping_or_a_scorer(given: Any, made: Scorer) -> None:
    assert scorer(given) == made
    assert create("best_of_n", scorer=given) == create("best_of_n", scorer=made)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("verifer", "scorer='verifer': unknown. Did you mean 'verifier'"),
        ({"name": "votes", "review": 3}, "scorer votes option review=3: unknown. Did you mean 'review"),
        ({"name": "lineup", "shown": 10}, "scorer lineup option shown=10: .*less than or equal to 9"),
        ({"name": "levels", "criteria": []}, "scorer levels option criteria="),
        ({"reviews": 3}, "give a name, or a mapping with a name and options"),
        (5, "scorer=5: give a name"),
        (None, "scorer=None: give a name"),
    ],
)
def test_what_is_no_scorer_is_refused_by_name_with_a_remedy(given: Any, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        scorer(given)
    with pytest.raises(InvalidConfiguration, match=message):
        create("best_of_n", scorer=given)


@pytest.mark.parametrize(
    ("make", "fitting", "unfit"),
    [(PVG, "logprob", "lineup"), (partial(Vote, members=(Single(), Single())), "levels", "logprob")],
)
def test_an_option_may_want_scores_one_by_one_or_between_0_and_1(make: Any, fitting: str, unfit: str) -> None:
    assert make(scorer=fitting).scorer == scorer(fitting)
    with pytest.raises(ValidationError, match="choose one that"):
        make(scorer=unfit)
