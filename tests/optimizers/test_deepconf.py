"""Confident traces vote; the others end early, and so does the rest once all agree."""

from collections.abc import Callable

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, asolve
from optillm_local.clients import Reply
from optillm_local.core.span import open_run
from optillm_local.optimizers.deepconf import DeepConf

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
SURE, UNSURE = -0.001, -1.5


def trace(answer: object, logprob: float, words: int = 36) -> Reply:
    return Reply("hm " * words + f"The answer is {answer}.", logprob)


def scripted(reply: Callable[[int], Reply]) -> ScriptedClient:
    """A trace by its number."""
    return ScriptedClient(lambda prompt: reply(prompt.sampling.seed or 0), seconds_per_token=1.0)


async def test_unsure_traces_are_aborted_mid_token_and_have_no_vote() -> None:
    # The warm-up is divided; of the others only number 6 is as sure as its best.
    client = scripted(lambda i: trace(12, SURE) if i in (0, 6) else trace(i, UNSURE))
    result = await asolve(QUESTION, DeepConf(warmup=4, max_traces=10), client=client, seed=0)
    assert (result.answer, result.selection) == (
        "12",
        "2 of 2 paths agree; 3 without weight; 5 aborted below the confidence threshold",
    )
    assert client.peak_concurrency == 6
    assert 5 * 10 <= result.usage.discarded <= 5 * 20  # a group is 10 of 40 tokens, and reports come every 8


async def test_once_all_agree_the_rest_is_not_begun() -> None:
    client = scripted(lambda i: trace(12, SURE))
    best = await DeepConf(warmup=4, max_traces=10).optimize(QUESTION, client)
    assert best.metadata["selection"] == "4 of 4 paths agree; 6 not begun once 95% of the vote agreed"
    assert len(client.prompts) == 4


async def test_once_all_agree_the_rest_is_aborted() -> None:
    client = scripted(lambda i: trace(7 if i == 0 else 12, SURE, words=36 if i < 8 else 400))
    best = await DeepConf(warmup=4, max_traces=10, consensus=0.85).optimize(QUESTION, client)
    assert (best.answer, client.stats().steps < 100) == ("12", True)
    assert best.metadata["selection"] == "7 of 8 paths agree; 2 aborted once 85% of the vote agreed"


@pytest.mark.parametrize(("variant", "answer"), [("low", "12"), ("high", "7")])
async def test_offline_the_surest_share_votes(variant: str, answer: str) -> None:
    client = scripted(lambda i: trace(12, SURE) if i == 3 else trace(7, UNSURE))
    deepconf = DeepConf(mode="offline", variant=variant, max_traces=8)
    best = await deepconf.optimize(QUESTION, client)
    assert (best.answer, client.stats().steps) == (answer, 40)
    assert "aborted" not in best.metadata["selection"]


async def test_one_unsure_stretch_counts_however_sure_the_rest() -> None:
    shaky = Reply("hm " * 36 + "The answer is 7.", SURE, logprobs=(SURE,) * 12 + (UNSURE,) * 12)
    client = scripted(lambda i: shaky if i else trace(12, -0.01))
    best = await DeepConf(mode="offline", max_traces=4).optimize(QUESTION, client)
    assert best.answer == "12"


async def test_it_takes_two_rounds() -> None:
    client = scripted(lambda i: trace(i, SURE))
    await DeepConf(variant="high", warmup=4, max_traces=12).optimize(QUESTION, client)
    assert (client.clock(), client.peak_concurrency) == (2 * 40, 8)


async def test_the_conversation_and_sampling_are_kept_and_seeds_repeat() -> None:
    prompt = Prompt.of([Message("system", "Be brief."), Message("user", "3 * 4?")], seed=5, temperature=0.3)
    runs = [scripted(lambda i: trace(i % 3, SURE)) for _ in range(2)]
    for client in runs:
        best = await DeepConf(warmup=2, max_traces=6).optimize(prompt, client)
        assert best.temperature == 0.3
    floors = [one.sampling.floor for one in runs[0].prompts]
    assert runs[0].prompts == runs[1].prompts
    assert [one.but(floor=None) for one in runs[0].prompts] == [
        prompt.but(seed=5 + i, statistics=20) for i in range(6)
    ]
    assert floors == [None, None, *[floors[-1]] * 4] and floors[-1] is not None


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("text", ["nonsense", "word " * 2000])
async def test_degraded_replies_give_what_there_is(mode: str, text: str) -> None:
    client = ScriptedClient(lambda prompt: text)
    with open_run() as run:
        best = await DeepConf(mode=mode, warmup=3, max_traces=6).optimize(QUESTION.but(max_tokens=50), client)
    assert best.answer == text[: 50 * 5].strip()
    assert best.id in [one.id for one in run.solutions]


async def test_traces_without_alternatives_have_a_vote_each() -> None:
    class Bare(ScriptedClient):
        """A model that tells no log-probabilities."""

        def _stream(self, prompt: Prompt):  # type: ignore[no-untyped-def]
            return super()._stream(prompt.but(logprobs=None))

    client = Bare(lambda prompt: trace(12 if (prompt.sampling.seed or 0) % 3 else 7, SURE))
    best = await DeepConf(warmup=3, max_traces=6).optimize(QUESTION, client)
    assert (best.answer, best.metadata["selection"]) == ("12", "4 of 6 paths agree")


@pytest.mark.parametrize("tokens", [30, 170, 300])
async def test_a_budget_that_ends_midway_gives_the_best_so_far(tokens: int) -> None:
    client = scripted(lambda i: trace(12 if i % 2 else 7, SURE))
    deepconf = DeepConf(variant="high", warmup=4, max_traces=12)
    result = await asolve(QUESTION, deepconf, client=client, seed=0, budget=Budget(tokens=tokens))
    assert result.budget_exhausted and result.answer
    assert result.usage.completion <= tokens + 9 * 8
