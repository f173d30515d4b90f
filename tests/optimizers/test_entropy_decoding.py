"""The optimizer steps in where the model is unsure, a bounded number of times."""

import math
from typing import Any

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, Solution, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.errors import NoSolutions
from optillm_local.optimizers.entropy_decoding import EntropyDecoding

QUESTION = Prompt.of("What is 3 * 4?", seed=0, max_tokens=60)
SURE = -0.001
EVEN = math.log(1 / 21)  # as likely as each of its 19 neighbours and the rest
UNEVEN, LOST = math.log(0.6), math.log(0.53)
END = " The answer is 12."


def unsure_at(place: int, logprob: float, text: str = " hm" * 6 + END) -> Reply:
    return Reply(text, SURE, logprobs=(SURE,) * place + (logprob,))


async def decode(*replies: Any, **options: Any) -> tuple[Solution, ScriptedClient]:
    """Replies to `decode` calls in turn; a branch is as likely as its place in the group."""
    turns = iter(replies)

    def say(prompt: Prompt) -> Any:
        if prompt.log_tag == "branch":
            return Reply(f" way-{prompt.sampling.seed % 2}", -0.1 - prompt.sampling.seed % 2)
        return next(turns)

    client = ScriptedClient(say, seconds_per_token=1.0)
    return await EntropyDecoding(**options).optimize(QUESTION, client), client


async def test_a_sure_model_is_left_alone() -> None:
    solution, client = await decode(Reply(" hm" * 20 + END, SURE))
    assert (len(client.prompts), solution.metadata["steps"]) == (1, {})
    how = client.prompts[0].sampling
    assert (how.temperature, how.top_p, how.top_k, how.min_p) == (0.666, 0.9, 27, 0.03)
    assert client.clock() == 24


async def test_where_it_is_evenly_unsure_a_pause_is_put_in() -> None:
    solution, client = await decode(unsure_at(4, EVEN), Reply(END, SURE))
    assert solution.reasoning == " hm hm hm hm..." + END
    assert solution.metadata["steps"] == {"treading": 1}
    begun = client.prompts[1].messages[-1]
    assert begun.content == " hm hm hm hm..." and client.decode(begun.token_ids) == begun.content


@pytest.mark.parametrize(
    ("logprob", "state", "temperature"), [(UNEVEN, "exploring", 0.7992), (LOST, "resampling", 2.0)]
)
async def test_where_it_is_unevenly_unsure_the_likeliest_branch_goes_on(
    logprob: float, state: str, temperature: float
) -> None:
    solution, client = await decode(unsure_at(2, logprob), Reply(END, SURE), lookahead=1)
    branches = [prompt for prompt in client.prompts if prompt.log_tag == "branch"]
    assert [one.sampling.temperature for one in branches] == pytest.approx([temperature] * 3)
    assert (solution.reasoning, solution.metadata["steps"]) == (" hm hm way-0" + END, {state: 1})
    assert client.peak_concurrency == 3


async def test_a_branch_that_ends_the_answer_ends_it() -> None:
    solution, client = await decode(unsure_at(2, UNEVEN))
    assert solution.reasoning == " hm hm way-0" and len(client.prompts) == 1 + 3


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_the_number_of_steps_is_bounded(steps: int) -> None:
    solution, client = await decode(*[Reply(" hm" * 10, EVEN)] * (steps + 1), steps=steps)
    assert (len(client.prompts), sum(solution.metadata["steps"].values())) == (steps + 1, steps)


async def test_what_lies_behind_an_unsure_token_is_discarded_and_told() -> None:
    client = ScriptedClient([unsure_at(4, EVEN), Reply(END, SURE)])
    result = await asolve(QUESTION, EntropyDecoding(), client=client)
    whole = result.solution.completion
    assert whole is not None and whole.text == client.decode(whole.token_ids)
    assert len(whole.logprobs) == len(whole.token_ids) == len(whole.top_logprobs)
    assert whole.usage.completion == result.usage.completion
    assert whole.usage.discarded >= 1


@pytest.mark.parametrize("pause", ["...", " one two three four five"])
async def test_the_conversation_is_kept_and_the_answer_keeps_to_max_tokens(pause: str) -> None:
    prompt = Prompt.of([Message("system", "Be brief."), *QUESTION.messages], max_tokens=20, seed=1)
    client = ScriptedClient(lambda prompt: unsure_at(3, EVEN, " hm" * 100))
    solution = await EntropyDecoding(pause=pause).optimize(prompt, client)
    assert all(asked.messages[:2] == prompt.messages for asked in client.prompts)
    assert solution.completion is not None and len(solution.completion.token_ids) == 20


@pytest.mark.parametrize("logprob", [SURE, EVEN, UNEVEN])
async def test_degraded_replies_give_what_there_is(logprob: float) -> None:
    solution = await EntropyDecoding().optimize(
        QUESTION, ScriptedClient(lambda prompt: Reply("nonsense", logprob))
    )
    assert solution.answer == "nonsense"
    with pytest.raises(NoSolutions, match="wrote nothing"):
        await EntropyDecoding().optimize(QUESTION, ScriptedClient(lambda prompt: Reply("", logprob)))


@pytest.mark.parametrize("tokens", [2, 9, 20])
async def test_a_budget_that_ends_midway_gives_what_was_said(tokens: int) -> None:
    client = ScriptedClient(lambda prompt: Reply(" hm" * 100, EVEN))
    result = await asolve(QUESTION, EntropyDecoding(), client=client, budget=Budget(tokens=tokens))
    assert result.budget_exhausted and result.answer.startswith("hm")


async def test_another_optimizer_may_sample_so() -> None:
    client = ScriptedClient(lambda prompt: Reply(END, SURE))
    best = await create("self_consistency@entropy_decoding", n=3).optimize(QUESTION, client)
    assert (best.answer, client.peak_concurrency) == ("12", 3)
