"""Answers in a form, biased tokens and tools, on the real engine."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from optillm_local import Message, Prompt
from optillm_local.core.concurrency import each
from optillm_local.core.errors import RequestRejected
from optillm_local.core.formats import ResponseFormat
from optillm_local.core.statistics import Floor
from optillm_local.engine import VLLMClient
from optillm_local.engine.chat import ChatRenderer
from optillm_local.engine.embedded import embedded_model

pytestmark = pytest.mark.timeout(400)

QUESTION = Prompt.of("Name a colour, and say why you like it.", temperature=0.9, seed=3, max_tokens=48)
PERSON = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "colour": {"enum": ["red", "blue"]}},
    "required": ["sure", "colour"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "paint", "description": "Größe < 3"}}
TOOLS_FIRST = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["engine", "async_engine"])
def either(request: pytest.FixtureRequest) -> VLLMClient:
    return request.getfixturevalue(request.param)


@pytest.fixture
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model())


async def test_an_answer_has_the_form_it_is_asked_for(either: VLLMClient) -> None:
    forms = [
        ResponseFormat("json_schema", PERSON),
        ResponseFormat("regex", r"[0-9]{3}-[a-f]{2}"),
        ResponseFormat("choice", ["certainly", "by no means"]),
    ]
    groups = await each(lambda form: either.sample(QUESTION, n=4, response_format=form), forms)
    assert {tuple(json.loads(one.text)) for one in groups[0] if one.finish_reason == "stop"} == {
        ("sure", "colour")
    }
    assert all(re.fullmatch(r"[0-9]{3}-[a-f]{2}", one.text) for one in groups[1])
    assert {one.text for one in groups[2]} <= {"certainly", "by no means"}


async def test_any_object_is_an_object(engine: VLLMClient) -> None:
    [one] = await engine.sample(QUESTION, response_format=ResponseFormat("json_object"))
    assert one.text.lstrip().startswith("{")
    assert one.finish_reason == "length" or isinstance(json.loads(one.text), dict)


async def test_a_form_leaves_its_neighbours_alone(engine: VLLMClient) -> None:
    form = ResponseFormat("choice", ["certainly", "by no means"])
    alone = await engine.sample(QUESTION, n=2)
    plain, formed = await each(lambda how: engine.sample(QUESTION, n=2, **how), [{}, {"response_format": form}])
    assert [one.token_ids for one in plain] == [one.token_ids for one in alone]
    assert {one.text for one in formed} <= {"certainly", "by no means"}


async def test_log_probabilities_are_over_what_the_form_allows(engine: VLLMClient) -> None:
    form = ResponseFormat("choice", ["certainly"])
    [one] = await engine.sample(QUESTION, response_format=form, logprobs=5)
    assert math.isfinite(sum(one.logprobs))
    assert -math.inf in [logprob for _, logprob in one.top_logprobs[-1]]


async def test_a_bias_forces_and_forbids_tokens(either: VLLMClient) -> None:
    [plain] = await either.sample(QUESTION, temperature=0.0, max_tokens=8)
    forced, *_ = either.encode(" blue")
    biased, without = await each(
        lambda bias: either.sample(QUESTION, temperature=0.0, max_tokens=8, logit_bias=bias),
        [{forced: 100}, {plain.token_ids[0]: -100}],
    )
    assert set(biased[0].token_ids) == {forced}
    assert plain.token_ids[0] not in without[0].token_ids


@pytest.mark.parametrize("how", [{"logit_bias": {7: 1}}, {"response_format": ResponseFormat("choice", ["green"])}])
async def test_changed_logits_are_listed_and_not_measured(engine: VLLMClient, how: dict[str, Any]) -> None:
    [one] = await engine.sample(QUESTION, statistics=5, floor=Floor(1e9, 1), **how)
    assert one.statistics is None and len(one.top_logprobs[0]) == 5
    assert one.finish_reason != "abort"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"logit_bias": {10**6: 1}}, r"logit_bias=1000000: .*token ids end at 49151"),
        ({"logit_bias": dict.fromkeys(range(1025), 1)}, "logit_bias='1025 tokens': at most 1024"),
        ({"response_format": ResponseFormat("regex", "(")}, "response_format=.*the engine refuses it"),
        ({"response_format": ResponseFormat("json_schema", {"type": "thing"})}, "response_format=.*refuses it"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused_by_name(
    either: VLLMClient, how: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestRejected, match=f"(?s)^{said}"):
        await either.sample(QUESTION, **how)
    [after] = await either.sample(QUESTION, max_tokens=2)
    assert after.finish_reason == "length"


async def test_a_bias_and_speculation_do_not_go_together(
    engine: VLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    speculating = engine.settings.model_copy(update={"speculative_config": {"method": "ngram"}})
    monkeypatch.setattr(engine, "settings", speculating)
    with pytest.raises(RequestRejected, match=r"logit_bias=.*leave out the setting speculative_config"):
        await engine.sample(QUESTION, logit_bias={7: 1})


async def test_an_open_thought_has_no_form(engine: VLLMClient) -> None:
    thinking = QUESTION.then(Message("assistant", "<think>\nLet me see:"))
    with pytest.raises(RequestRejected, match=r"response_format='json_object': close the thought"):
        await engine.sample(thinking, response_format=ResponseFormat("json_object"))


async def test_tools_the_template_cannot_show_are_refused(engine: VLLMClient) -> None:
    prompt = Prompt(QUESTION.messages, tools=(TOOL,))
    with pytest.raises(RequestRejected, match=r"tools='1 tools': the model's chat template has no place for them"):
        await engine.sample(prompt)


def test_tools_are_shown_by_the_template_as_json(tokenizer: Any) -> None:
    tokenizer.chat_template = TOOLS_FIRST
    renderer, tools = ChatRenderer(tokenizer, {}), Prompt(QUESTION.messages, tools=(TOOL, TOOL)).tools
    shown = tokenizer.decode(renderer.render(QUESTION.messages, tools).ids)
    assert [json.loads(line) for line in shown.splitlines()[1:3]] == [TOOL, TOOL]
    assert renderer.render(QUESTION.messages).ids == renderer.render(QUESTION.messages, ()).ids


def test_a_follow_up_continues_what_was_generated_behind_the_tools(tokenizer: Any) -> None:
    tokenizer.chat_template = TOOLS_FIRST
    renderer, asked = ChatRenderer(tokenizer, {}), Prompt(QUESTION.messages, tools=(TOOL,))
    first = renderer.render(asked.messages, asked.tools).ids
    answer = Message("assistant", "Red.", tuple(tokenizer.encode("Red.<|im_end|>", add_special_tokens=False)))
    second = renderer.render((*asked.messages, answer, Message("user", "Sure?")), asked.tools).ids
    assert second[: len(first) + len(answer.token_ids)] == [*first, *answer.token_ids]
