"""Every likely first token starts a path; the answer the model is surest of wins."""

import math

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.thinking import CLOSE
from optillm_local.optimizers.cot_decoding import CotDecoding

QUESTION = Prompt.of("What is 3 * 4?", seed=0, max_tokens=100)
SURE, UNSURE = -0.001, -1.2


def path(answer: object, sure: float, words: float = SURE) -> Reply:
    """Six tokens, the last of them the answer."""
    return Reply(f" hm hm. The answer is {answer}.", sure, logprobs=(words,) * 5)


def branching(*paths: Reply) -> ScriptedClient:
    """The first token is 'So' or one of its synthetic neighbours; each leads to another path."""
    client = ScriptedClient([], seconds_per_token=1.0)
    [first] = client.encode("So")

    def say(prompt: Prompt) -> str | Reply:
        begun = prompt.messages[-1]
        return "So" if begun.role == "user" else paths[(begun.token_ids[0] - first) % len(paths)]

    client._answers = say
    return client


async def test_the_answer_with_the_widest_margin_wins_even_if_its_words_were_unsure() -> None:
    client = branching(path(7, UNSURE), path(12, SURE, words=UNSURE))
    best = await CotDecoding(k=2).optimize(QUESTION, client)
    assert (best.answer, best.metadata["selection"]) == ("12", "1 of 2 paths agree")
    assert best.metadata["weight"] == pytest.approx(math.exp(SURE) - (1 - math.exp(SURE)) / 2)


async def test_margins_of_equal_answers_add_up() -> None:
    client = branching(path(7, SURE), path("12", -0.4), path("12.0", -0.4), path("12", -0.4))
    assert (await CotDecoding(k=4).optimize(QUESTION, client)).answer == "12"
    client = branching(path(7, SURE), path("12", -0.4), path("12.0", -0.4), path("12", -0.4))
    alone = await CotDecoding(k=4, aggregate=False).optimize(QUESTION, client)
    assert (alone.answer, alone.metadata["selection"]) == ("7", "1 of 1 paths agree; 3 without weight")


async def test_each_path_goes_on_from_its_own_first_token_and_contains_it() -> None:
    client = branching(path(7, UNSURE), path(12, SURE))
    best = await CotDecoding(k=5).optimize(QUESTION, client)
    read, *paths = client.prompts
    assert (read.sampling.max_tokens, read.sampling.logprobs) == (1, 5)
    first = [prompt.messages[-1].token_ids for prompt in paths]
    assert first == [(first[0][0] + i,) for i in range(5)]
    assert best.completion is not None and best.completion.token_ids[:1] in first
    assert best.reasoning == client.decode(best.completion.token_ids)


async def test_it_takes_one_step_more_than_a_path() -> None:
    client = branching(path(12, SURE))
    await CotDecoding().optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 1 + 6
    assert client.peak_concurrency == 10


async def test_the_conversation_is_kept() -> None:
    prompt = Prompt.of([Message("system", "Be brief."), Message("user", "3 * 4?")], max_tokens=9)
    client = branching(path(12, SURE))
    await CotDecoding(k=3).optimize(prompt, client)
    assert all(asked.messages[:2] == prompt.messages for asked in client.prompts)


@pytest.mark.parametrize("text", ["nonsense", "word " * 200, CLOSE])
async def test_degraded_replies_give_what_there_is(text: str) -> None:
    best = await CotDecoding(k=3).optimize(QUESTION, ScriptedClient(lambda prompt: text))
    assert text[:8].strip() in best.reasoning


async def test_where_no_first_tokens_can_be_had_there_is_one_path() -> None:
    client = ScriptedClient(lambda prompt: Reply("The answer is 12.", SURE))
    best = await create("cot_decoding@single", k=3).optimize(QUESTION, client)
    assert best.answer == "12"


@pytest.mark.parametrize("tokens", [3, 5, 12])
async def test_a_budget_that_ends_midway_gives_what_was_said(tokens: int) -> None:
    client = branching(path(12, SURE))
    result = await asolve(QUESTION, CotDecoding(k=2), client=client, budget=Budget(tokens=tokens))
    assert result.budget_exhausted and result.answer


async def test_a_budget_for_the_first_tokens_alone_gives_no_answer() -> None:
    with pytest.raises(BudgetExceeded):
        await asolve(QUESTION, CotDecoding(), client=branching(path(12, SURE)), budget=Budget(tokens=1))
