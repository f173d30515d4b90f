"""Turns conversations into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from optillm_local.core.errors import RequestRejected
from optillm_local.core.formats import JsonObject
from optillm_local.core.prompt import Message
from optillm_local.core.thinking import CLOSE, OPEN, is_thinking


class Rendered(NamedTuple):
    """A conversation as the model gets it."""

    ids: list[int]
    opens_thinking: bool  # the prompt ends inside a thinking tag, so the answer begins there


class ChatRenderer:
    """Applies the model's chat template, and puts generated turns back as the very ids that were generated.

    Text that is tokenised again need not give the ids that were sampled, and would then miss the prefix cache
    from the first difference on. So assistant turns that carry ids are rendered as marks, the text between the
    marks is tokenised, and the ids go where the marks stand.
    """

    def __init__(self, tokenizer: Any, template_options: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._options = dict(template_options)
        template = getattr(tokenizer, "chat_template", None)
        self._has_template = bool(template)
        self._shows_tools = "tools" in str(template)
        self._special = frozenset(tokenizer.all_special_ids)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, think: bool = True
    ) -> Rendered:
        """Token ids of a conversation, ready for the model to answer, or to continue its last message.

        With `think=False` the answer begins at once: models that think first are told not to, and a thought that
        the template opens is closed again. What is read from the next token is then the answer.

        Raises:
            RequestRejected: the template refuses the conversation, or has no place for tools.
        """
        history = {**self._options, **self._presented(tools)}
        options = history if think else {**history, "enable_thinking": False}
        plain = [{"role": m.role, "content": m.content} for m in messages]
        marked = [{**turn, "content": content} for content, turn in zip(_marks(messages), plain, strict=True)]
        marks = {_mark(i): i for i, m in enumerate(messages) if m.token_ids}
        text = self._apply(marked, options)
        if any(text.count(mark) != 1 for mark in marks):  # a template that rewrites old turns: text must do
            text, marks = self._apply(plain, options), {}
        ids = self._spliced(messages, marked, marks, text, history)
        continued = messages[-1].role == "assistant"
        if continued and messages[-1].token_ids and not messages[-1].appended and ids[-1] in self._special:
            ids.pop()  # to write on, the end of the turn must go
        opened = self._opens_thinking(messages, text)
        if opened and not think and not continued:
            ids, opened = ids + self._encode(f"\n{CLOSE}\n\n"), False
        return Rendered(ids, opened)

    def _presented(self, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tools as an option of the template: plain, since templates write them as JSON."""
        if tools and not self._shows_tools:
            raise RequestRejected(
                "tools", f"{len(tools)} tools", "the model's chat template has no place for them; leave them out"
            )
        return {"tools": [JsonObject.of("tools", tool).plain() for tool in tools]} if tools else {}

    def _opens_thinking(self, messages: Sequence[Message], text: str) -> bool:
        """Whether the prompt ends inside a thinking tag that the template or the last message opens."""
        said = [m.content for m in messages if m.role != "assistant"][-1:]
        tail = text.rpartition(said[0])[2] if said else text
        tail += messages[-1].content if messages[-1].token_ids else ""
        return is_thinking(tail)

    def _apply(self, messages: list[dict[str, str]], options: Mapping[str, Any]) -> str:
        if not self._has_template:  # a base model: nothing but the texts
            return "\n\n".join(message["content"] for message in messages)
        continued = messages[-1]["role"] == "assistant"
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not continued,
                continue_final_message=continued,
                **options,
            )
        except Exception as error:  # jinja raises whatever the template says
            roles = [message["role"] for message in messages]
            raise RequestRejected("messages", roles, f"the model's chat template refuses them: {error}") from error
        return rendered

    def _spliced(
        self,
        messages: Sequence[Message],
        marked: list[dict[str, str]],
        marks: Mapping[str, int],
        text: str,
        options: Mapping[str, Any],
    ) -> list[int]:
        bos = None if self._has_template else self._tokenizer.bos_token_id  # templates bring their own
        ids: list[int] = [] if bos is None else [bos]
        last = ""
        for mark, turn in marks.items():
            before, _, text = text.partition(mark)
            asked = self._as_asked(marked[:turn], last, options) or before
            if messages[turn].content.startswith(OPEN):  # it opens its thought itself
                asked = _unopened(asked)
            ids += self._after_generated(ids, asked)
            ids += messages[turn].token_ids
            if messages[turn].appended:
                while ids[-1] in self._special:  # the turn went on behind what ended it
                    ids.pop()
            last = mark
        return ids + self._after_generated(ids, text)

    def _as_asked(self, earlier: list[dict[str, str]], last_mark: str, options: Mapping[str, Any]) -> str:
        """The text a turn was generated after, from the last mark on.

        It is not always what stands before that turn in a history: where the template opens a thought for the
        model, histories leave the tag out. Empty if that text cannot be had.
        """
        if not earlier or earlier[-1]["role"] == "assistant":
            return ""
        asked = self._apply(earlier, options)
        return asked.partition(last_mark)[2] if last_mark else asked

    def _after_generated(self, ids: list[int], text: str) -> list[int]:
        """The ids of the next text, without an end-of-turn token that was generated already."""
        following = self._encode(text)
        repeated = bool(ids and following) and ids[-1] == following[0] and ids[-1] in self._special
        return following[1:] if repeated else following

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False) if text else []
        return found


def _marks(messages: Sequence[Message]) -> list[str]:
    """The content of each message, or the mark that stands for its ids with the text behind them."""
    return [_mark(i) + m.appended if m.token_ids else m.content for i, m in enumerate(messages)]


def _unopened(text: str) -> str:
    """The text without the thought that a template opens at its end."""
    shown = text.rstrip()
    return shown.removesuffix(OPEN) if shown.endswith(OPEN) else text


def _mark(turn: int) -> str:
    return f"\ue000{turn}\ue001"
