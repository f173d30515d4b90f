"""What is asked: messages, sampling, and what is refused before it reaches an engine."""

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from optillm_local import Message, Prompt, Sampling
from optillm_local.core.errors import RequestRejected
from optillm_local.core.formats import ResponseFormat
from optillm_local.core.statistics import Floor

NAN, INF = math.nan, math.inf
CHAT = Prompt((Message("system", "Be brief."), Message("user", "2 + 2?")))


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        *(("temperature", bad, "between 0 and 2") for bad in (-0.1, 2.1)),
        *(("temperature", bad, "finite number") for bad in (NAN, INF, -INF, True, "hot", None)),
        *(("top_p", bad, "between 0 and 1") for bad in (-0.1, 1.1)),
        ("top_p", 0, "temperature=0 for greedy"),
        ("min_p", 1.5, "between 0 and 1"),
        *((f"{kind}_penalty", bad, "between -2 and 2") for kind in ("presence", "frequency") for bad in (-3, 3)),
        *(("max_tokens", bad, "whole number") for bad in (1.0, True, "8", NAN, None)),
        *(("max_tokens", bad, "at least 1") for bad in (0, -1, 2**63)),
        *((field, -1, "at least 0") for field in ("top_k", "logprobs", "seed")),
        *((field, False, "whole number") for field in ("top_k", "logprobs", "seed")),
        ("stop", "###", r"\('###',\)"),
        *(("stop", bad, "non-empty") for bad in (("",), (None,), ("ok", 3))),
        *(("logit_bias", bad, "a mapping from token ids") for bad in (7, "no", [1, 2])),
        *(("logit_bias", {bad: 1.0}, "no token id") for bad in ("7", -1, True, 1.5, None)),
        *(
            ("logit_bias", {7: bad}, "of token 7.*-100 and 100")
            for bad in (101, -100.5, NAN, INF, "1", True, None)
        ),
        *(("response_format", bad, "pass a ResponseFormat") for bad in ("json_object", {"type": "text"})),
    ],
)
def test_a_sampling_value_that_cannot_work_is_refused_by_name_with_a_remedy(
    field: str, value: Any, remedy: str
) -> None:
    with pytest.raises(RequestRejected, match=f"^{field}=.*{remedy}") as refused:
        Sampling(**{field: value})
    assert (refused.value.field, refused.value.value) == (field, value)


@pytest.mark.parametrize("changed", [Sampling().but, CHAT.but, lambda **f: Prompt.of("2 + 2?", **f)])
def test_an_unknown_sampling_field_is_answered_with_the_nearest(changed: Any) -> None:
    with pytest.raises(RequestRejected, match=r"temprature=0\.5: unknown\. Did you mean 'temperature'"):
        changed(temprature=0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Message("robot", "hi"), "role='robot': unknown. Known: assistant, system, user"),
        (lambda: Message("users", "hi"), "Did you mean 'user'"),
        (lambda: Message("user", 7), "content=7: .* is text"),
        (lambda: Prompt(()), "messages=.*at least one"),
        (lambda: Prompt.of(""), "messages=.*every message is empty"),
    ],
)
def test_a_conversation_that_asks_nothing_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RequestRejected, match=message):
        make()


def test_an_assistant_turn_of_tokens_alone_is_something() -> None:
    assert Prompt((Message("assistant", "", (7,)),)).question == ""


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
FORMED = replace(CHAT.but(logit_bias={7: 1}, response_format=ResponseFormat("choice", ["4", "5"])), tools=[TOOL])


@pytest.mark.parametrize("value", [CHAT, CHAT.sampling, CHAT.messages[0], FORMED, FORMED.sampling])
def test_prompts_are_frozen_and_hashable(value: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, value.__slots__[0], None)
    assert {value} == {value}


def test_lists_become_tuples() -> None:
    assert Sampling(stop=["a", "b"]).stop == ("a", "b")
    assert Prompt([Message("user", "hi")]) == Prompt.of("hi")


def test_biases_become_pairs_in_the_order_of_ids() -> None:
    biased = Sampling(logit_bias={9: -100, 7: 0.5})
    assert biased.logit_bias == ((7, 0.5), (9, -100.0))
    assert biased == biased.but(top_k=0) == Sampling(logit_bias=[(9, -100), (7, 0.5)])  # type: ignore[arg-type]
    assert Sampling(logit_bias=None) == Sampling(logit_bias={}) == Sampling()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, False),
        ({"presence_penalty": 0.1}, True),
        ({"frequency_penalty": 0.1}, True),
        ({"logit_bias": {7: 1}}, True),
        ({"response_format": ResponseFormat("json_object")}, True),
        ({"temperature": 0.1, "top_p": 0.5, "stop": ("x",)}, False),
    ],
)
def test_some_ways_to_sample_change_the_logits(how: dict[str, Any], expected: bool) -> None:
    assert Sampling(**how).reshapes is expected


def test_tools_stay_with_a_prompt_and_nobody_can_change_them() -> None:
    asked: dict[str, Any] = {"type": "function", "function": {"name": "add"}}
    prompt = replace(CHAT, tools=(asked,))
    asked["function"]["name"] = "subtract"
    prompt.tools[0]["function"]["name"] = "multiply"
    assert prompt.tools == ({"type": "function", "function": {"name": "add"}},)
    assert prompt.step("ask").then(Message("assistant", "4")).tools == prompt.tools


@pytest.mark.parametrize("bad", [TOOL, "add", None, ["add"], [{"f": {1, 2}}], [{"f": NAN}], [{"f": "\ud800"}]])
def test_a_tool_that_is_no_json_is_refused(bad: Any) -> None:
    with pytest.raises(RequestRejected, match=r"^tools="):
        replace(CHAT, tools=bad)


def test_a_fan_draws_with_consecutive_seeds() -> None:
    prompt = CHAT.but(seed=5)
    assert [one.sampling.seed for one in prompt.fan(3)] == [5, 6, 7]
    assert [one.but(seed=5) for one in prompt.fan(3)] == [prompt] * 3


def test_a_fan_without_a_seed_is_the_same_prompt() -> None:
    assert CHAT.fan(3) == [CHAT] * 3


@pytest.mark.parametrize("n", [0, -1, 1.0, True, NAN])
def test_a_fan_of_no_whole_number_is_refused(n: Any) -> None:
    with pytest.raises(RequestRejected, match=r"n=.*at least 1"):
        CHAT.fan(n)


def test_instructions_stand_in_for_every_system_message() -> None:
    prompt = Prompt.of((Message("system", "old"), *CHAT.messages), system="new")
    assert prompt.conversation == (Message("system", "new"), Message("user", "2 + 2?"))
    assert CHAT.conversation == CHAT.messages


def test_a_prompt_of_a_prompt_keeps_what_is_not_changed() -> None:
    tagged = Prompt.of(CHAT.but(log_tag="tag", seed=1), temperature=0.5)
    assert (tagged.sampling, tagged.log_tag) == (Sampling(seed=1, temperature=0.5), "tag")
    assert Prompt.of(CHAT) == CHAT
    assert Prompt.of(CHAT, system="new").instructions == "new"


def test_the_question_is_what_the_user_said_last() -> None:
    longer = CHAT.then(Message("assistant", "4"), Message("user", "Sure?"), Message("assistant", "Ye"))
    assert (CHAT.question, longer.question) == ("2 + 2?", "Sure?")
    assert Prompt((Message("system", "Speak."),)).question == "Speak."


@pytest.mark.parametrize(
    ("begun", "rest", "turn"),
    [
        (Message("assistant", "It"), Message("assistant", " is 4", (7,)), Message("assistant", "It is 4")),
        (
            Message("assistant", "It", (5,)),
            Message("assistant", " is", (7,)),
            Message("assistant", "It is", (5, 7)),
        ),
        (
            Message("assistant", "It", (5,)),
            Message("assistant", " is 4", (7,), " 4"),
            Message("assistant", "It is 4", (5, 7), " 4"),
        ),
        (
            Message("assistant", "It is", (5,), " is"),
            Message("assistant", " 4", (7,)),
            Message("assistant", "It is 4", (5,), " is 4"),
        ),
    ],
)
def test_an_answer_that_was_begun_is_continued_in_one_turn(begun: Message, rest: Message, turn: Message) -> None:
    ask = Message("user", "Sure?")
    assert CHAT.then(begun).then(rest, ask).messages == (*CHAT.messages, turn, ask)


def test_confidence_is_measured_over_at_least_as_many_alternatives_as_needed() -> None:
    asked = [CHAT.but(statistics=have).measured(2).sampling.statistics for have in (None, 1, 2, 20)]
    assert asked == [2, 2, 2, 20]


@pytest.mark.parametrize(("listed", "measured", "shown"), [(None, None, None), (0, 5, 5), (None, 5, 5), (9, 5, 9)])
def test_who_cannot_measure_lists_alternatives(
    listed: int | None, measured: int | None, shown: int | None
) -> None:
    assert Sampling(logprobs=listed, statistics=measured).alternatives == shown


def test_log_probabilities_of_tokens_are_asked_for_where_nobody_did() -> None:
    assert [CHAT.but(logprobs=have).with_logprobs().sampling.logprobs for have in (None, 0, 2)] == [0, 0, 2]


@pytest.mark.parametrize(
    ("floor", "said"),
    [(Floor(NAN, 8), "a number"), (Floor(5.0, 0), "at least 1"), (Floor(5.0, 2.5), "a whole number")],  # type: ignore[arg-type]
)
def test_a_floor_that_means_nothing_is_refused(floor: Floor, said: str) -> None:
    with pytest.raises(RequestRejected, match=f"floor=.*{said}"):
        CHAT.but(statistics=20, floor=floor)


def test_a_floor_needs_something_to_measure() -> None:
    with pytest.raises(RequestRejected, match=r"floor=.*also set statistics"):
        CHAT.but(floor=Floor(5.0, 8))


def test_an_instruction_goes_behind_the_question() -> None:
    told = CHAT.instructed("Be brief.")
    assert told.messages == (CHAT.messages[0], Message("user", "2 + 2?\n\nBe brief."))
    answered = CHAT.then(Message("assistant", "4"))
    assert answered.instructed("Sure?") == answered.then(Message("user", "Sure?"))


def test_the_steps_of_a_run_draw_with_seeds_of_their_own_that_repeat() -> None:
    prompt = CHAT.but(seed=5)
    seeds = [prompt.step(*key).sampling.seed for key in [("ask",), ("ask", 1), ("ask", 2), ("check",)]]
    assert len({5, *seeds}) == 5 and seeds[1] == prompt.step("ask", 1).sampling.seed
    assert CHAT.step("ask").sampling.seed is None
    assert prompt.step("ask", seed=9).sampling.seed == 9


def test_a_step_is_tagged_and_may_be_shorter_but_never_longer() -> None:
    prompt = CHAT.but(max_tokens=100)
    assert prompt.step("ask", at_most=10, temperature=0.1).sampling == prompt.sampling.but(
        max_tokens=10, temperature=0.1
    )
    assert (prompt.step("ask", at_most=1000).sampling.max_tokens, prompt.step("ask").log_tag) == (100, "ask")


def test_words_put_into_a_mouth_stand_behind_what_was_generated() -> None:
    said = Message("assistant", "It is", (1, 2)).plus(" 4").plus(", no:")
    assert said == Message("assistant", "It is 4, no:", (1, 2), " 4, no:")
    assert Message("assistant", "It is").plus(" 4") == Message("assistant", "It is 4")
    with pytest.raises(RequestRejected, match=r"appended='5': must be the end"):
        Message("assistant", "4", (1,), "5")
