"""Turns conversations into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optillm_local.core.errors import RequestRejected
from optillm_local.core.prompt import Message
from optillm_local.core.thinking import CLOSE, OPEN


class ChatRenderer:
    """Applies the model's chat template, and puts generated turns back as the very ids that were generated.

    Text that is tokenised again need not give the ids that were sampled, and would then miss the prefix cache
    from the first difference on. So assistant turns that carry ids are rendered as marks, the text between the
    marks is tokenised, and the ids go where the marks stand.
    """

    def __init__(self, tokenizer: Any, template_options: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._options = dict(template_options)
        self._special = frozenset(tokenizer.all_special_ids)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the model to answer, or to continue its last message.

        Raises:
            RequestRejected: the template refuses the conversation.
        """
        marks = {f"\ue000{i}\ue001": m.token_ids for i, m in enumerate(messages) if m.token_ids}
        marked = [
            {"role": m.role, "content": f"\ue000{i}\ue001" if m.token_ids else m.content}
            for i, m in enumerate(messages)
        ]
        text = self._apply(marked, continued=messages[-1].role == "assistant")
        if any(text.count(mark) != 1 for mark in marks):  # a template that rewrites old turns: text must do
            plain = [{"role": m.role, "content": m.content} for m in messages]
            return self._encode(self._apply(plain, continued=messages[-1].role == "assistant"))
        return self._spliced(text, marks)

    def opens_thinking(self, messages: Sequence[Message]) -> bool:
        """Whether the prompt itself opens the thinking tag, so that the answer begins inside it."""
        plain = [{"role": m.role, "content": m.content} for m in messages[-1:]]
        text = self._apply(plain, continued=messages[-1].role == "assistant")
        return text.rfind(OPEN) > text.rfind(CLOSE)

    def _apply(self, messages: list[dict[str, str]], *, continued: bool) -> str:
        if not getattr(self._tokenizer, "chat_template", None):  # a base model: nothing but the texts
            return "\n\n".join(message["content"] for message in messages)
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not continued,
                continue_final_message=continued,
                **self._options,
            )
        except Exception as error:  # jinja raises whatever the template says
            roles = [message["role"] for message in messages]
            raise RequestRejected("messages", roles, f"the model's chat template refuses them: {error}") from error
        return rendered

    def _spliced(self, text: str, marks: Mapping[str, tuple[int, ...]]) -> list[int]:
        ids: list[int] = []
        for mark, generated in marks.items():
            before, _, text = text.partition(mark)
            ids += self._after_generated(ids, before)
            ids += generated
        return ids + self._after_generated(ids, text)

    def _after_generated(self, ids: list[int], text: str) -> list[int]:
        """The ids of the next text, without an end-of-turn token that was generated already."""
        following = self._encode(text)
        repeated = bool(ids and following) and ids[-1] == following[0] and ids[-1] in self._special
        return following[1:] if repeated else following

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False) if text else []
        return found
