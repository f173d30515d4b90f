"""The same assertions on every `ModelClient`: a script, and vLLM in both of its forms."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from optillm_local import Budget, ModelClient, Prompt, ScriptedClient, Stop, TokenUsage
from optillm_local.core.budget import Meter
from optillm_local.core.completion import Completed, OutputTextDelta
from optillm_local.core.concurrency import Stoppable
from optillm_local.core.errors import BudgetExceeded, RequestRejected
from optillm_local.core.span import open_run

pytestmark = pytest.mark.timeout(300)

QUESTION = Prompt.of("Name three colours of the rainbow.", temperature=0.7, max_tokens=12)
SCRIPT = "red orange yellow green blue indigo violet and then all of them over again until the end"


@pytest.fixture(params=["scripted", "inprocess", "async"])
def client(request: pytest.FixtureRequest, anyio_backend_name: str) -> ModelClient:
    if request.param == "scripted":
        return ScriptedClient(lambda prompt: SCRIPT, choices={"Yes": 0.6, "No": 0.2})
    if request.param == "inprocess":
        return request.getfixturevalue("engine")
    return request.getfixturevalue("async_engine")


async def test_a_stream_is_deltas_and_one_completion(client: ModelClient) -> None:
    *deltas, end = [event async for event in client.stream(QUESTION)]
    assert all(isinstance(delta, OutputTextDelta) for delta in deltas)
    assert isinstance(end, Completed)
    assert end.completion.text == "".join(delta.delta for delta in deltas)
    assert end.usage.completion == len(end.completion.token_ids) == sum(len(d.token_ids) for d in deltas)


async def test_a_half_read_stream_may_be_left(client: ModelClient) -> None:
    stream = client.stream(QUESTION)
    await anext(stream)
    await stream.aclose()
    assert (await client.sample(QUESTION, max_tokens=1))[0].finish_reason == "length"


async def test_a_group_has_consecutive_seeds(client: ModelClient) -> None:
    completions = await client.sample(QUESTION, n=3, seed=5)
    assert [one.seed for one in completions] == [5, 6, 7]
    assert all(len(one.logprobs) == len(one.token_ids) for one in completions)
    assert all(value <= 0 for one in completions for value in one.logprobs)


async def test_greedy_answers_repeat(client: ModelClient) -> None:
    [first] = await client.sample(QUESTION, temperature=0.0)
    [second] = await client.sample(QUESTION, temperature=0.0)
    assert first.text == second.text


async def test_max_tokens_ends_with_length(client: ModelClient) -> None:
    [one] = await client.sample(QUESTION, max_tokens=3)
    assert (one.finish_reason, one.usage.completion) == ("length", 3)


async def test_alternatives_are_reported_on_request(client: ModelClient) -> None:
    [one] = await client.sample(QUESTION, max_tokens=4, logprobs=3)
    assert [len(top) for top in one.top_logprobs] == [3, 3, 3, 3]
    assert one.confidence > 0
    [bare] = await client.sample(QUESTION, max_tokens=4, logprobs=None)
    assert bare.logprobs == () and math.isnan(bare.mean_logprob)


async def test_one_sequence_can_be_stopped(client: ModelClient) -> None:
    one, stopped, other = await client.sample(
        QUESTION, n=3, on_delta=lambda index, delta: Stop.SEQUENCE if index == 1 else None
    )
    assert stopped.finish_reason == "abort"
    assert 0 < stopped.usage.discarded == stopped.usage.completion < 12
    assert {one.finish_reason, other.finish_reason} <= {"stop", "length"}


async def test_a_group_can_be_stopped(client: ModelClient) -> None:
    group = await client.sample(QUESTION, n=3, on_delta=lambda index, delta: Stop.GROUP)
    assert [one.finish_reason for one in group] == ["abort"] * 3


async def test_an_early_end_is_told_with_its_reason_once(client: ModelClient) -> None:
    told: list[Any] = []
    with open_run([told.append]):
        async with client.generate(QUESTION.fan(3)) as group:
            _ = await anext(group)
            group.stop(1, because="it lost")
            group.stop(1, because="again")
    stops = [(event.sequence_ids, event.reason) for event in told if event.event == "stopped_early"]
    assert stops == [(["sequence-1"], "it lost"), (["sequence-0", "sequence-2"], "no longer needed")]


async def test_the_end_of_work_that_is_stopped_is_told_with_its_reason(client: ModelClient) -> None:
    told: list[Any] = []
    with open_run([told.append]), Stoppable() as work:
        await client.sample(QUESTION, n=2, max_tokens=400, on_delta=lambda i, d: work.stop("it is decided"))
    [stopped] = [event for event in told if event.event == "stopped_early"]
    assert (stopped.sequence_ids, stopped.reason) == (["sequence-0", "sequence-1"], "it is decided")


async def test_a_failure_that_ends_a_group_is_its_reason(client: ModelClient) -> None:
    told: list[Any] = []
    with open_run([told.append]), pytest.raises(KeyError):
        async with client.generate(QUESTION.fan(2)) as group:
            raise KeyError(await anext(group))
    assert [event.reason for event in told if event.event == "stopped_early"] == ["KeyError was raised"]


async def test_a_model_writes_on_behind_words_put_into_its_mouth(client: ModelClient) -> None:
    [begun] = await client.sample(QUESTION, max_tokens=4)
    asked = QUESTION.then(begun.message().plus(" Wait,"))
    [more] = await client.sample(asked, max_tokens=4)
    assert 1 <= more.usage.completion <= 4 and more.usage.prompt > begun.usage.prompt + 4


async def test_tokens_and_their_text_are_told(client: ModelClient) -> None:
    [one] = await client.sample(QUESTION)
    assert client.decode(one.token_ids) == one.text
    assert client.decode(client.encode(" Wait,\n")) == " Wait,\n"


async def test_prompts_that_do_not_fit_into_one_step_keep_their_seeds(client: ModelClient) -> None:
    long = [Prompt.of(f"{i} " + "one two three " * 233, max_tokens=4, seed=i) for i in range(3)]
    async with client.generate(long) as group:
        together = {i: event.completion.text async for i, event in group if isinstance(event, Completed)}
    assert sorted(together) == [0, 1, 2]
    [alone] = await client.sample(long[2])
    assert alone.text == together[2]


async def test_what_events_say_is_what_the_engine_counted(client: ModelClient) -> None:
    before = client.stats()
    with open_run() as run:
        group = await client.sample(QUESTION, n=3, on_delta=lambda i, d: Stop.SEQUENCE if i else None)
        choice = await client.choose(QUESTION, ["Yes", "No"])
        scores = await client.score(QUESTION, ["red", "green and blue"])
    spent = client.stats() - before
    parts = [*(one.usage for one in group), choice.usage, *(score.usage for score in scores)]
    assert run.usage == sum(parts, start=TokenUsage())
    assert run.usage.completion == spent.generated_tokens
    assert run.usage.cached == spent.cached_prompt_tokens
    assert run.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens


async def test_cancelling_ends_decoding_and_counts_it(client: ModelClient) -> None:
    before = client.stats()
    with open_run() as run:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await client.sample(
                    QUESTION, n=2, max_tokens=400, on_delta=lambda i, d: tasks.cancel_scope.cancel()
                )

            tasks.start_soon(ask)
    assert 0 < run.usage.discarded == run.usage.completion < 100
    assert run.usage.completion == (client.stats() - before).generated_tokens


async def test_a_read_that_is_cancelled_is_accounted_for(client: ModelClient) -> None:
    before = client.stats()
    with open_run() as run:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.choose, QUESTION, ["Yes", "No"])
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    spent = client.stats() - before
    assert run.usage.completion == spent.generated_tokens > 0
    assert run.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens


async def test_choose_reads_probabilities(client: ModelClient) -> None:
    choice = await client.choose(Prompt.of("Is fire hot? Answer Yes or No."), ["Yes", "No"])
    assert math.fsum(choice.probabilities.values()) == pytest.approx(1)
    assert 0 < choice.label_mass <= 1
    assert choice.best in choice.probabilities


@pytest.mark.parametrize("options", [[], ["Yes"], ["Yes", ""], ["Yes", " yes"]])
async def test_choose_refuses_options_it_cannot_tell_apart(client: ModelClient, options: list[str]) -> None:
    with pytest.raises(RequestRejected, match="options"):
        await client.choose(QUESTION, options)


async def test_score_gives_one_logprob_per_token(client: ModelClient) -> None:
    short, long = await client.score(QUESTION, ["Red", "Red, orange and yellow."])
    assert len(short.logprobs) == len(short.token_ids) < len(long.token_ids) == len(long.logprobs)
    assert long.total == pytest.approx(sum(long.logprobs)) and long.total < 0


async def test_score_refuses_an_empty_text(client: ModelClient) -> None:
    with pytest.raises(RequestRejected, match="continuations"):
        await client.score(QUESTION, ["fine", ""])


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
async def test_sample_refuses_a_bad_n(client: ModelClient, n: int) -> None:
    with pytest.raises(RequestRejected, match="n="):
        await client.sample(QUESTION, n=n)


async def test_a_token_budget_ends_the_group_and_then_refuses(client: ModelClient) -> None:
    with open_run(meter=Meter(Budget(tokens=9), client.clock())) as run:
        group = await client.sample(QUESTION, n=4, max_tokens=200)
        assert 9 <= run.usage.completion <= 9 + 4 * 9
        assert {one.finish_reason for one in group} <= {"abort", "length", "stop"}
        with pytest.raises(BudgetExceeded, match="9 tokens"):
            await client.sample(QUESTION)


async def test_a_time_budget_ends_the_group(client: ModelClient) -> None:
    with open_run(meter=Meter(Budget(seconds=0.05), client.clock())) as run:
        [one] = await client.sample(QUESTION, max_tokens=1000)
    assert one.finish_reason == "abort" or isinstance(client, ScriptedClient)
    assert run.usage.completion < 200
