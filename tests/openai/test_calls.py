"""Chat completions: the model itself, or an optimizer, in OpenAI's types."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from optillm_local import Budget, Prompt, ScriptedClient
from optillm_local.clients import Reply
from optillm_local.core.errors import ModelNotFound, RequestRejected
from optillm_local.openai.calls import Completions

THOUGHT = "<think>three times four</think> It is 12."


def asked(**params: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "What is 3 * 4?"}], **params}


def by_seed(prompt: Prompt) -> str:
    return f"answer {prompt.sampling.seed}"


async def pieces(calls: Completions, **params: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in calls.stream_chat(asked(stream=True, **params))]


def text(chunks: list[ChatCompletionChunk], name: str = "content", index: int = 0) -> str:
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(getattr(delta, name, None) or "" for delta in deltas)


async def test_a_plain_model_answers_with_what_it_thought_and_what_it_cost() -> None:
    answer = await Completions(ScriptedClient([THOUGHT])).chat(asked(metadata={"a": "b"}))
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("It is 12.", "stop")
    assert choice.message.reasoning_content == "three times four"  # type: ignore[attr-defined]
    assert answer.usage and answer.usage.total_tokens == 5 + 6
    assert answer.usage.completion_tokens_details and answer.usage.completion_tokens_details.reasoning_tokens == 3
    assert answer.usage.prompt_tokens_details and answer.usage.prompt_tokens_details.cached_tokens == 0
    assert (answer.id[:9], answer.metadata, answer.model) == ("chatcmpl-", {"a": "b"}, "scripted")


async def test_choices_of_a_model_are_one_batch() -> None:
    client = ScriptedClient(by_seed)
    answer = await Completions(client).chat(asked(n=3, seed=5))
    assert [choice.message.content for choice in answer.choices] == ["answer 5", "answer 6", "answer 7"]
    assert client.peak_concurrency == 3
    assert client.stats().steps == 2


async def test_choices_of_an_optimizer_are_runs_side_by_side_whose_seeds_do_not_meet() -> None:
    client = ScriptedClient(by_seed)
    await Completions(client).chat(asked(n=2, seed=0, model="best_of_n-scripted"))
    seeds = [prompt.sampling.seed for prompt in client.prompts if prompt.messages[-1].role == "user"]
    assert len(set(seeds)) >= 6
    assert client.peak_concurrency >= 6


async def test_an_answer_of_an_optimizer_says_how_it_came_about() -> None:
    client = ScriptedClient(by_seed, choices={"Yes": 0.9, "No": 0.1})
    answer: Any = await Completions(client).chat(asked(model="bon-scripted", seed=1, **{"best_of_n.n": 2}))
    about = answer.optillm
    assert (about["optimizer"], about["options"]["n"]) == ("best_of_n", 2)
    assert about["choices"][0]["verification_score"] == pytest.approx(0.9)
    assert about["choices"][0]["selection"] == "highest P(correct) of 2: 0.900"
    assert about["engine_steps"] == client.stats().steps
    assert about["discarded_tokens"] == 2  # verdicts are read
    assert answer.usage.completion_tokens == client.stats().generated_tokens
    assert ChatCompletion.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize(
    ("model", "reply", "content", "answer"),
    [
        ("self_consistency", "<think>hm</think> Twelve. The answer is 12.", "Twelve. The answer is 12.", "12"),
        ("cot_reflection", "<thinking>so</thinking> <output>12</output>", "12", "12"),
        ("re2", "Twelve it is.", "Twelve it is.", "Twelve it is."),
    ],
)
async def test_the_content_is_the_reply_that_states_the_answer(
    model: str, reply: str, content: str, answer: str
) -> None:
    made: Any = await Completions(ScriptedClient(lambda prompt: reply)).chat(asked(model=f"{model}-scripted"))
    assert made.choices[0].message.content == content
    assert made.optillm["choices"][0]["answer"] == answer


async def test_the_conversation_arrives_as_it_was_sent_but_for_the_tag() -> None:
    client = ScriptedClient(by_seed)
    turns = [
        ("system", "brief"),
        ("user", "a <optillm_approach>re2</optillm_approach>"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    messages = [{"role": role, "content": content} for role, content in turns]
    answer: Any = await Completions(client).chat({"model": "scripted", "messages": messages})
    assert answer.optillm["optimizer"] == "re2"
    assert [message.role for message in client.prompts[0].messages] == ["system", "user", "assistant", "user"]
    assert client.prompts[0].messages[1].content == "a"


async def test_log_probabilities_are_those_of_the_tokens() -> None:
    client = ScriptedClient([Reply("yes it is", logprobs=(-0.5, -0.25))])
    answer = await Completions(client).chat(asked(logprobs=True, top_logprobs=2))
    listed = answer.choices[0].logprobs
    assert listed and listed.content
    assert [(one.token, one.logprob) for one in listed.content] == [("yes", -0.5), (" it", -0.25), (" is", -0.1)]
    assert [len(one.top_logprobs) for one in listed.content] == [2, 2, 2]
    assert listed.content[1].bytes == list(b" it")
    [prompt] = client.prompts
    assert prompt.sampling.logprobs == 2


async def test_nobody_lists_log_probabilities_that_were_not_asked_for() -> None:
    client = ScriptedClient(["yes"])
    answer = await Completions(client).chat(asked())
    assert answer.choices[0].logprobs is None
    assert client.prompts[0].sampling.logprobs is None


@pytest.mark.parametrize("limits", [{"optillm_budget": {"tokens": 8}}, {}])
async def test_a_budget_cuts_an_answer_and_says_so(limits: dict[str, Any]) -> None:
    calls = Completions(ScriptedClient(["word " * 100]))
    answer: Any = await calls.chat(asked(**limits), budget=Budget(tokens=20) if limits else Budget(tokens=8))
    assert answer.choices[0].finish_reason == "length"
    assert answer.optillm["budget_exhausted"]
    assert answer.usage.completion_tokens == 8


async def test_the_budget_of_an_optimizer_holds_for_all_its_choices() -> None:
    client = ScriptedClient(["word " * 100] * 99)
    answer: Any = await Completions(client).chat(asked(model="moa-scripted", n=3), budget=Budget(tokens=300))
    assert answer.optillm["budget_exhausted"]
    assert 300 <= answer.usage.completion_tokens == client.stats().generated_tokens <= 300 + 9 * 9


async def test_a_model_streams_its_tokens_and_its_thoughts_apart() -> None:
    calls = Completions(ScriptedClient([THOUGHT]))
    chunks = await pieces(calls, stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text(chunks) == "It is 12."
    assert text(chunks, "reasoning_content") == "three times four"
    assert [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content] == [
        "It",
        " is",
        " 12.",
    ]
    assert [choice.finish_reason for chunk in chunks[-3:] for choice in chunk.choices] == [None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.completion_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_of_several_choices_is_the_same_as_their_answers() -> None:
    chunks = await pieces(Completions(ScriptedClient(by_seed)), n=3, seed=0)
    assert [text(chunks, index=index) for index in range(3)] == ["answer 0", "answer 1", "answer 2"]
    ends = [
        (choice.index, hasattr(chunk, "optillm"))
        for chunk in chunks
        for choice in chunk.choices
        if choice.finish_reason
    ]
    assert sorted(index for index, _ in ends) == [0, 1, 2]
    assert [has_account for _, has_account in ends] == [False, False, True]


async def test_an_optimizer_streams_its_sequences_as_reasoning_and_then_its_answer() -> None:
    chunks: Any = await pieces(Completions(ScriptedClient(by_seed)), model="moa-scripted", seed=0)
    thought = text(chunks, "reasoning_content")
    assert [thought.count(f"[{step}]") for step in ("propose", "critique", "synthesize")] == [3, 1, 1]
    assert text(chunks).startswith("answer ")
    assert chunks[-1].optillm["optimizer"] == "moa"


async def test_log_probabilities_stream_with_their_tokens() -> None:
    chunks = await pieces(Completions(ScriptedClient(["a b c"])), logprobs=True)
    tokens = [
        one.token
        for c in chunks
        for choice in c.choices
        if choice.logprobs
        for one in choice.logprobs.content or []
    ]
    assert tokens == ["a", " b", " c"]


async def test_events_of_the_run_come_along_where_they_are_asked_for() -> None:
    calls = Completions(ScriptedClient(by_seed))
    chunks: Any = await pieces(calls, model="re2-scripted", stream_options={"include_events": True})
    told = [chunk.optillm_event["event"] for chunk in chunks if hasattr(chunk, "optillm_event")]
    assert told[0] == "run_started" and told[-1] == "run_completed"
    assert all(not chunk.choices for chunk in chunks if hasattr(chunk, "optillm_event"))


@pytest.mark.parametrize("model", ["scripted", "bon-scripted"])
async def test_a_reader_that_leaves_ends_the_run(model: str) -> None:
    client = ScriptedClient(["word " * 1000] * 9)
    async with aclosing(Completions(client).stream_chat(asked(stream=True, model=model))) as stream:
        async for chunk in stream:
            if text([chunk]) or text([chunk], "reasoning_content"):
                break
    assert client.stats().running == 0
    assert client.stats().generated_tokens < 200


def test_a_request_that_cannot_work_is_refused_before_there_is_a_stream() -> None:
    calls = Completions(ScriptedClient([]))
    with pytest.raises(RequestRejected, match="temperature"):
        calls.stream_chat(asked(stream=True, temperature=9))
    with pytest.raises(ModelNotFound):
        calls.stream_chat(asked(stream=True, model="other"))


async def test_requests_of_everybody_share_the_batch() -> None:
    client = ScriptedClient(by_seed)
    calls = Completions(client)
    async with anyio.create_task_group() as tasks:
        for seed in range(4):
            tasks.start_soon(calls.chat, asked(seed=seed))
    assert client.peak_concurrency == 4


async def test_a_completion_as_of_old_continues_each_prompt() -> None:
    calls = Completions(ScriptedClient(lambda prompt: f"{prompt.question} and on", model="tiny"))
    answer = await calls.complete({"model": "tiny", "prompt": ["a", "b"], "logprobs": 1, "n": 2})
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "a and on"),
        (1, "a and on"),
        (2, "b and on"),
        (3, "b and on"),
    ]
    told = answer.choices[0].logprobs
    assert told and (told.tokens, told.text_offset) == (["a", " and", " on"], [0, 1, 5])
    assert answer.usage and answer.usage.completion_tokens == 12


@pytest.mark.parametrize("model", ["tiny", "re2-tiny"])
async def test_a_completion_as_of_old_streams(model: str) -> None:
    calls = Completions(ScriptedClient(["a b c"], model="tiny"))
    options = {"include_usage": True}
    stream = calls.stream_complete({"model": model, "prompt": "x", "stream": True, "stream_options": options})
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "a b c"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 3


def test_the_model_is_listed_by_all_its_names() -> None:
    calls = Completions(ScriptedClient([]), names=["one", "two"], adapters=["poet"])
    assert [model.id for model in calls.models()] == ["one", "two", "poet"]
