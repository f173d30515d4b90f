"""Conversations as token ids, also under templates that open a thought for the model."""

from __future__ import annotations

from typing import Any

import pytest

from optillm_local import Message
from optillm_local.core.errors import RequestRejected
from optillm_local.engine.chat import ChatRenderer
from optillm_local.engine.embedded import embedded_model

# As DeepSeek-R1's: a question opens a thought, and a history leaves the thoughts out.
OPENS_A_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}"
    "{% if m.role == 'user' or not loop.last or add_generation_prompt %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
QUESTION = Message("user", "Is fire hot?")


@pytest.fixture
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture
def thinker(tokenizer: Any) -> ChatRenderer:
    tokenizer.chat_template = OPENS_A_THOUGHT
    return ChatRenderer(tokenizer, {})


def encode(renderer: ChatRenderer, text: str) -> tuple[int, ...]:
    return tuple(renderer._tokenizer.encode(text, add_special_tokens=False))


def test_a_thought_that_the_template_opens_is_known(thinker: ChatRenderer) -> None:
    assert thinker.render([QUESTION]).opens_thinking
    assert not thinker.render([QUESTION, Message("assistant", "Yes")]).opens_thinking


def test_a_tag_in_the_question_opens_nothing(tokenizer: Any) -> None:
    assert not ChatRenderer(tokenizer, {}).render([Message("user", "What does <think> mean?")]).opens_thinking


def test_what_is_read_comes_after_the_thought(thinker: ChatRenderer) -> None:
    asked, read = thinker.render([QUESTION]), thinker.render([QUESTION], think=False)
    assert read.ids == [*asked.ids, *encode(thinker, "\n</think>\n\n")] and not read.opens_thinking


def test_a_follow_up_continues_the_thought_that_was_generated(thinker: ChatRenderer) -> None:
    first = thinker.render([QUESTION]).ids
    answer = Message("assistant", "hm</think>Yes.", encode(thinker, "hm</think>Yes.<|im_end|>"))
    second = thinker.render([QUESTION, answer, Message("user", "Sure?")]).ids
    assert second[: len(first) + len(answer.token_ids)] == [*first, *answer.token_ids]
    third = [QUESTION, answer, Message("user", "Sure?"), answer, Message("user", "Really?")]
    assert thinker.render(third).ids[: len(second) + len(answer.token_ids)] == [*second, *answer.token_ids]


def test_a_generated_turn_is_continued_before_its_end(tokenizer: Any) -> None:
    renderer = ChatRenderer(tokenizer, {})
    ended = Message("assistant", "Yes", encode(renderer, "Yes<|im_end|>"))
    plain = Message("assistant", "Yes")
    assert renderer.render([QUESTION, ended]).ids == renderer.render([QUESTION, plain]).ids


@pytest.mark.parametrize("generated", ["Yes", "Yes<|im_end|>"])
def test_words_put_into_the_models_mouth_follow_what_it_generated(tokenizer: Any, generated: str) -> None:
    renderer = ChatRenderer(tokenizer, {})
    said = Message("assistant", "Yes", encode(renderer, generated)).plus(" Wait,")
    asked = renderer.render([QUESTION]).ids
    assert renderer.render([QUESTION, said]).ids == [*asked, *encode(renderer, "Yes"), *encode(renderer, " Wait,")]
    followed = renderer.render([QUESTION, said, Message("user", "Sure?")]).ids
    plain = [QUESTION, Message("assistant", "Yes Wait,"), Message("user", "Sure?")]
    assert followed == renderer.render(plain).ids


def test_a_thought_that_the_turn_opens_itself_is_opened_once(thinker: ChatRenderer) -> None:
    begun = Message("assistant", "<think>\nhm", encode(thinker, "<think>\nhm"))
    rendered = thinker.render([QUESTION, begun])
    shown = thinker._tokenizer.decode(rendered.ids)
    assert shown.endswith("assistant\n<think>\nhm") and shown.count("<think>") == 1
    assert rendered.opens_thinking


def test_a_base_model_gets_the_text_alone(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    renderer = ChatRenderer(tokenizer, {})
    text = renderer.render([Message("system", "Facts."), QUESTION]).ids
    assert text == [tokenizer.bos_token_id, *encode(renderer, "Facts.\n\nIs fire hot?")]


def test_a_conversation_the_template_refuses_is_said(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system messages, please') }}"
    with pytest.raises(RequestRejected, match="no system messages, please"):
        ChatRenderer(tokenizer, {}).render([QUESTION])
