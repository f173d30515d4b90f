"""The scripted model keeps its script, its counts and its clock."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from optillm_local import Message, Prompt, ScriptedClient, TokenUsage, asolve
from optillm_local.clients import Reply
from optillm_local.core.concurrency import each
from optillm_local.core.errors import ClientError, EngineDead, InvalidConfiguration
from optillm_local.core.events import EVENT
from optillm_local.core.formats import ResponseFormat

QUESTION = Prompt.of("What is 2 + 2?", seed=0)


async def say(client: ScriptedClient, prompt: Prompt = QUESTION, **how: Any) -> str:
    [one] = await client.sample(prompt, **how)
    return one.text


async def test_three_explorations_take_as_long_as_one() -> None:
    client = ScriptedClient(lambda prompt: "one two three four", seconds_per_token=0.5)
    await client.sample(QUESTION)
    assert client.clock() == 4 * 0.5
    await each(lambda _: client.sample(QUESTION), range(3))
    assert client.clock() == 2 * 4 * 0.5
    assert (client.stats().steps, client.stats().generated_tokens) == (8, 16)


async def test_a_group_takes_as_long_as_its_longest_sequence() -> None:
    client = ScriptedClient(lambda prompt: "word " * (1 + prompt.sampling.seed), seconds_per_token=1.0)
    await client.sample(QUESTION, n=5)
    assert (client.clock(), client.stats().mean_batch) == (6.0, (1 + 2 + 3 + 4 + 5 + 5) / 6)


async def test_peak_concurrency_is_the_most_sequences_open_at_once() -> None:
    client = ScriptedClient(lambda prompt: "one two")
    await client.sample(QUESTION, n=4)
    await client.sample(QUESTION, n=2)
    assert (client.peak_concurrency, client.stats().peak_running, client.stats().running) == (4, 4, 0)


@pytest.mark.parametrize(
    "answers",
    [
        ["first", "second", "third"],
        lambda prompt: ["first", "second", "third"][prompt.sampling.seed],
        [Reply("first"), Reply("second"), "third"],
    ],
)
async def test_siblings_get_their_answers_in_order(answers: Any) -> None:
    client = ScriptedClient(answers)
    assert [one.text for one in await client.sample(QUESTION, n=3)] == ["first", "second", "third"]
    assert [prompt.sampling.seed for prompt in client.prompts] == [0, 1, 2]


async def test_it_may_be_surer_of_some_tokens_than_of_others() -> None:
    [one] = await ScriptedClient([Reply("so it is", -0.5, logprobs=(-0.1, -2.0))]).sample(QUESTION, logprobs=2)
    assert one.logprobs == (-0.1, -2.0, -0.5)
    assert [top[0][1] for top in one.top_logprobs] == [-0.1, -2.0, -0.5]


async def test_its_tokens_have_the_text_they_came_with() -> None:
    client = ScriptedClient([" one two\n"])
    [one] = await client.sample(QUESTION, logprobs=2)
    assert client.decode(one.token_ids) == one.text == " one two\n"
    assert client.encode(one.text) == one.token_ids
    (_, (alternative, _)), *_ = one.top_logprobs
    assert client.decode((alternative,)) == f" <{alternative}>"


async def test_what_goes_on_inside_a_thought_is_thought() -> None:
    thinking = QUESTION.then(Message("assistant", "<think>\n"))
    [one] = await ScriptedClient(["hm </think> 4"]).sample(thinking)
    [other] = await ScriptedClient(["hm"]).sample(thinking)
    assert [(it.reasoning, it.answer) for it in (one, other)] == [("hm", "4"), ("hm", "")]


async def test_reading_and_scoring_take_no_turn_of_the_script() -> None:
    client = ScriptedClient(["first", "second"])
    assert await say(client) == "first"
    await client.choose(QUESTION, ["Yes", "No"])
    await client.score(QUESTION, ["a", "b"])
    assert await say(client) == "second"
    assert client.prompts == [QUESTION] * 4


async def test_a_mapping_answers_the_first_part_of_a_question_that_fits() -> None:
    client = ScriptedClient({"2 + 2": "4", "2": "two"})
    assert await say(client) == "4"
    assert await say(client, Prompt.of("half of 4 is 2?")) == "two"
    with pytest.raises(ClientError, match=r"no answer for 'Why\?'; it knows \['2 \+ 2', '2'\]"):
        await say(client, Prompt.of("Why?"))


@pytest.mark.parametrize("n", [1, 3])
async def test_out_of_script_is_an_error_that_says_so(n: int) -> None:
    client = ScriptedClient(["only one"])
    await say(client)
    with pytest.raises(ClientError, match="has 1 answers and was asked for number 2"):
        await client.sample(QUESTION, n=n)
    assert client.stats().running == 0


async def test_a_script_may_fail_like_a_model() -> None:
    def dies(prompt: Prompt) -> str:
        raise EngineDead("out of power")

    with pytest.raises(EngineDead, match="out of power"):
        await ScriptedClient(dies).sample(QUESTION, n=2)


@pytest.mark.parametrize(
    ("stop", "said", "finish"),
    [
        (("##",), "so 4 ", "stop"),
        (("is", "4 ##"), "so ", "stop"),
        (("so",), "", "stop"),
        (("#", "##"), "so 4 ", "stop"),
        (("never",), "so 4 ## and more", "stop"),
    ],
)
async def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(
    stop: tuple[str, ...], said: str, finish: str
) -> None:
    [one] = await ScriptedClient(["so 4 ## and more"]).sample(QUESTION, stop=stop)
    assert (one.text, one.finish_reason) == (said, finish)


@pytest.mark.parametrize(("most", "finish"), [(1, "length"), (2, "length"), (3, "length"), (4, "stop")])
async def test_max_tokens_ends_the_answer(most: int, finish: str) -> None:
    [one] = await ScriptedClient(["one two three"]).sample(QUESTION, max_tokens=most)
    assert (len(one.token_ids), one.finish_reason) == (min(most, 3), finish)


async def test_logprobs_are_the_replys_and_alternatives_share_the_rest() -> None:
    client = ScriptedClient(lambda prompt: Reply("one two", logprob=math.log(0.7)))
    [one] = await client.sample(QUESTION, logprobs=4)
    assert one.mean_logprob == pytest.approx(math.log(0.7))
    assert all(
        sum(math.exp(value) for _, value in top[1:]) == pytest.approx(0.3 * 3 / 4) for top in one.top_logprobs
    )
    [bare] = await client.sample(QUESTION, logprobs=None)
    assert (bare.logprobs, bare.top_logprobs) == ((), ())


async def test_thinking_is_told_apart_and_counted() -> None:
    [one] = await ScriptedClient(["<think>2 + 2</think> 4"]).sample(QUESTION)
    assert (one.reasoning, one.answer, one.usage.reasoning) == ("2 + 2", "4", 3)


async def test_usage_counts_words_and_reads() -> None:
    client = ScriptedClient(["the answer is 4"])
    [one] = await client.sample(QUESTION)
    choice = await client.choose(QUESTION, ["Yes", "No"])
    [score] = await client.score(QUESTION, ["four of them"])
    assert one.usage == TokenUsage(prompt=5, completion=4)
    assert choice.usage == TokenUsage(prompt=5, completion=1, discarded=1)
    assert score.usage == TokenUsage(prompt=5 + 3, completion=1, discarded=1)


@pytest.mark.parametrize(
    ("choices", "expected", "mass"),
    [
        (None, {"Yes": 0.5, "No": 0.5}, 1.0),
        ({"Yes": 0.6, "No": 0.2}, {"Yes": 0.75, "No": 0.25}, 0.8),
        ({"Yes": 0.3}, {"Yes": 1.0, "No": 0.0}, 0.3),
        ({"Maybe": 1.0}, {"Yes": 0.5, "No": 0.5}, 0.0),
        (lambda prompt, options: {options[1]: 0.5}, {"Yes": 0.0, "No": 1.0}, 0.5),
    ],
)
async def test_choices_are_normalised_and_what_they_lack_is_missing_mass(
    choices: Any, expected: dict[str, float], mass: float
) -> None:
    choice = await ScriptedClient([], choices=choices).choose(QUESTION, ["Yes", "No"])
    assert choice.probabilities == pytest.approx(expected)
    assert choice.label_mass == pytest.approx(mass)


async def test_longer_texts_score_lower() -> None:
    short, long = await ScriptedClient([]).score(QUESTION, ["four", "four and more"])
    assert long.total < short.total < 0
    assert len(long.token_ids) == len(long.logprobs) == 3


ASKS: dict[str, Callable[[ScriptedClient], Any]] = {
    "sample": lambda client: client.sample(QUESTION, n=2),
    "choose": lambda client: client.choose(QUESTION, ["Yes", "No"]),
    "score": lambda client: client.score(QUESTION, ["a"]),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_a_closed_client_refuses(ask: Callable[[ScriptedClient], Any]) -> None:
    async with ScriptedClient(["4"]) as client:
        pass
    await client.close()
    with pytest.raises(ClientError, match="is closed; make a new one"):
        await ask(client)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_what_is_cancelled_is_no_longer_running(ask: Callable[[ScriptedClient], Any]) -> None:
    client = ScriptedClient(lambda prompt: "word " * 10**4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert client.stats().running == 0
    assert await say(client, max_tokens=1) == "word"


async def test_the_clock_goes_on_when_whoever_drove_it_is_cancelled() -> None:
    client = ScriptedClient(lambda prompt: "one two three")
    async with anyio.create_task_group() as tasks:
        first = anyio.CancelScope()

        async def cancelled() -> None:
            with first:
                await client.sample(QUESTION, on_delta=lambda index, delta: first.cancel())

        tasks.start_soon(cancelled)
        assert await say(client) == "one two three"


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_step_that_takes_no_time_that_is_a_number_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidConfiguration, match="seconds_per_token"):
        ScriptedClient([], seconds_per_token=seconds)


NAMES_AND_TIMES = r"solution-\w+|\d{4}-\d\d-\d\dT[\d:.+]+"


@pytest.mark.parametrize("optimizer", ["single", "best_of_n", "self_consistency"])
def test_a_run_repeats_byte_for_byte(optimizer: str) -> None:
    def answer(prompt: Prompt) -> Reply:
        seed = prompt.sampling.seed or 0
        return Reply("Hm. " * (seed * 7 % 5) + f"The answer is {seed % 2}.", logprob=-0.01 * (seed % 4))

    async def run() -> str:
        events: list[Any] = []
        client = ScriptedClient(answer, choices=lambda prompt, _: {"Yes": len(prompt.messages[1].content) % 7 / 7})
        result = await asolve(QUESTION, optimizer, client=client, seed=3, sinks=[events.append])
        told = [EVENT.dump_python(e, exclude={"timestamp", "span_id", "parent_id", "sequence_id"}) for e in events]
        return repr([told, result.as_dict()])

    first, second = (re.sub(NAMES_AND_TIMES, "", anyio.run(run)) for _ in range(2))
    assert first == second


async def test_the_clock_waits_for_work_that_is_no_models() -> None:
    client = ScriptedClient(lambda prompt: "word " * 50, seconds_per_token=1.0)

    async def work() -> None:
        with client.clock_held():
            await anyio.sleep(0.05)
            assert client.clock() <= 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.sample, Prompt.of("?"))
        tasks.start_soon(work)
    assert client.clock() >= 50


async def test_it_says_what_it_is_told_in_whatever_form_it_is_asked() -> None:
    client = ScriptedClient(["no JSON"])
    form = ResponseFormat("json_object")
    asked = replace(QUESTION.but(logit_bias={7: -100}, response_format=form), tools=({"type": "function"},))
    assert await say(client, asked) == "no JSON"
    assert client.prompts == [asked]
