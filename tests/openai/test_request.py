"""Every parameter is honoured or refused by name."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.resources.chat.completions import Completions as Theirs
from openai.resources.completions import Completions as TheirOld
from openai.types.chat import ChatCompletionMessage

from optillm_local import Message
from optillm_local.core.errors import RequestRejected
from optillm_local.core.formats import ResponseFormat
from optillm_local.openai.request import _REFUSED, ChatRequest, CompletionRequest

HELLO = {"role": "user", "content": "hello"}
_OF_THE_TRANSPORT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def ask(**params: Any) -> ChatRequest:
    return ChatRequest.of({"messages": [HELLO], **params})


def said(**message: Any) -> tuple[Message, ...]:
    return ChatRequest.of({"messages": [HELLO, message]}).prompts()[0].messages[1:]


@pytest.mark.parametrize(("ours", "theirs"), [(ChatRequest, Theirs), (CompletionRequest, TheirOld)])
def test_there_is_no_parameter_of_openai_that_we_have_not_heard_of(ours: Any, theirs: Any) -> None:
    known = {*ours.model_fields, *_REFUSED, *_OF_THE_TRANSPORT}
    assert set(inspect.signature(theirs.create).parameters) - known == set()


def test_what_is_set_reaches_the_model() -> None:
    sampling = ask(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        max_completion_tokens=7,
        stop="END",
        seed=3,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"7": 2},
    ).sampling()
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.max_tokens, sampling.stop, sampling.seed) == (7, ("END",), 3)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert sampling.logit_bias == ((7, 2.0),)


def test_null_is_as_good_as_absent() -> None:
    names = ("temperature", "tools", "functions", "response_format", "stop", "n", "stream", "max_tokens", "audio")
    assert ask(**dict.fromkeys(names)) == ask()
    assert ask().sampling().max_tokens == 4096


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**30}, "n"),
        ({"seed": -1}, "seed"),
        ({"stop": ["a", ""]}, "stop"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream": True, "stream_options": {"include_use": True}}, "stream_options.include_use"),
        ({"logit_bias": {"the": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": ["f"]}, "tools.0"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object", "choice": ["a"]}}, "response_format.choice"),
        ({"optillm_budget": {"tokens": 0}}, "optillm_budget.tokens"),
        ({"user": "\ud800"}, "user"),
        ({"\udfff": 1}, "\\udfff"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_what_cannot_work_is_refused_by_name(params: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        ask(**params)
    assert refused.value.field == field
    assert refused.value.remedy


@pytest.mark.parametrize("name", ["store", "service_tier", "modalities", "parallel_tool_calls", "functions"])
def test_a_value_that_changes_nothing_is_taken(name: str) -> None:
    assert ask(**{name: _REFUSED[name][0][0]}) == ask()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[1].role"),
        ({"role": "user", "content": "x", "name": "Ada"}, "messages[1].name"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[1].content[0]"),
        ({"role": "user", "content": "x", "reasoning_content": "y"}, "messages[1].reasoning_content"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "messages[1].tool_calls"),
    ],
)
def test_a_message_that_cannot_be_passed_on_is_refused(message: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        said(**message)
    assert refused.value.field == field


def test_messages_come_in_every_spelling() -> None:
    assert said(role="developer", content="be brief") == (Message("system", "be brief"),)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(role="user", content=parts) == (Message("user", "a\nb"),)
    answer = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": "yes", "reasoning_content": "hm", "annotations": []}
    )
    [prompt] = ChatRequest.of({"messages": [HELLO, answer, HELLO]}).prompts()
    assert [one.content for one in prompt.messages] == ["hello", "yes", "hello"]


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}},
            ResponseFormat("json_schema", {"type": "object"}),
        ),
        ({"type": "regex", "regex": "[ab]"}, ResponseFormat("regex", "[ab]")),
        ({"type": "choice", "choice": ["a", "b"]}, ResponseFormat("choice", ["a", "b"])),
    ],
)
def test_the_form_of_an_answer_reaches_the_model(asked: dict[str, Any], form: ResponseFormat | None) -> None:
    assert ask(response_format=asked).sampling().response_format == form


def test_tools_are_for_the_template_unless_none_may_be_chosen() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert ask(tools=[tool]).prompts()[0].tools == (tool,)
    assert ask(tools=[tool], tool_choice="none").prompts()[0].tools == ()


def test_completions_as_of_old_have_their_own_limit_and_several_prompts() -> None:
    prompts = CompletionRequest.of({"prompt": ["a", "b"]}).prompts()
    assert [(one.question, one.sampling.max_tokens) for one in prompts] == [("a", 16), ("b", 16)]


@pytest.mark.parametrize(
    ("params", "field"),
    [({"prompt": [1, 2]}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": "x", "echo": True}, "echo")],
)
def test_a_completion_as_of_old_that_cannot_work_is_refused(params: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        CompletionRequest.of(params)
    assert refused.value.field.startswith(field)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*ChatRequest.model_fields, *_REFUSED])


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_whatever_is_sent_is_taken_or_refused(body: dict[str, Any]) -> None:
    try:
        ChatRequest.of({"messages": [HELLO], **body})
    except RequestRejected as refused:
        assert refused.field


@given(JSON)
def test_whatever_message_is_sent_is_taken_or_refused(message: Any) -> None:
    try:
        ChatRequest.of({"messages": [HELLO, message]})
    except RequestRejected as refused:
        assert refused.field.startswith("messages")
