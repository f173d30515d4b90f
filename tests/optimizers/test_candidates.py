"""Candidates of optimizers in steps: what is kept of them, and which is whole."""

import pytest

from optillm_local import Message, Prompt, ScriptedClient, Solution
from optillm_local.core.errors import NoSolutions
from optillm_local.core.span import open_run
from optillm_local.optimizers.candidates import asking, candidate, first_whole

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


async def made(text: str, **sampling: int) -> Solution:
    asked = QUESTION.but(**sampling)
    [completion] = await ScriptedClient([text]).sample(asked)
    return candidate(completion, asked, "test")


async def test_the_first_whole_one_wins_over_earlier_ones_that_are_cut_off() -> None:
    texts = [await made(""), await made("a b c d", max_tokens=2), await made("<think>hm"), await made("12")]
    assert first_whole(texts).answer == "12"
    assert first_whole(texts[:3]).answer == "a b"
    with pytest.raises(NoSolutions, match="max_tokens"):
        first_whole(texts[:1])


async def test_what_says_nothing_is_not_kept() -> None:
    with open_run() as run:
        await made("")
        kept = await made("12")
    assert run.solutions == [kept]


def test_another_question_takes_the_place_of_the_last_with_all_before_it() -> None:
    turns = (Message("system", "s"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert asking(Prompt.of(turns), "d").messages == (*turns[:3], Message("user", "d"))
    assert asking(Prompt.of([*turns, Message("assistant", "so")]), "d").messages == (
        *turns[:3],
        Message("user", "d"),
    )
    assert asking(Prompt.of([Message("system", "s")]), "d").messages == (Message("user", "d"),)
