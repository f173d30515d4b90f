"""Answers in pieces, as OpenAI's API streams them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from openai.types import Completion as TextCompletion
from openai.types.chat import ChatCompletionChunk

from optillm_local.core.completion import OutputTextDelta
from optillm_local.core.events import Event, Sink, TokensDecoded
from optillm_local.openai.answering import Call, Reader
from optillm_local.openai.request import StreamOptions
from optillm_local.openai.response import Answer, Outcome, Shape, finish_reason, usage_of
from optillm_local.openai.spoken import Narrator, Spoken

Chunk = TypeVar("Chunk")


class _Stream(ABC, Reader, Generic[Chunk]):
    """Reads choices as they are made, and tells chunks of them."""

    def __init__(self, call: Call, shape: Shape, options: StreamOptions, tell: Callable[[Chunk], None]) -> None:
        self._optimizer, self._shape, self._options, self._tell = call.optimizer, shape, options, tell
        self._running = len(call.prompts)
        self._last: tuple[int, str] = (0, "")

    @abstractmethod
    def said(self, index: int, delta: OutputTextDelta) -> None: ...

    @abstractmethod
    def whole(self, index: int, answer: Answer) -> None:
        """Tell what of a choice has not been told yet."""

    @abstractmethod
    def finish(self, index: int, reason: str, **fields: Any) -> Chunk:
        """The chunk that ends a choice."""

    @abstractmethod
    def bare(self, **fields: Any) -> Chunk:
        """A chunk without choices."""

    def answered(self, index: int, answer: Answer) -> None:
        self.whole(index, answer)
        self._running -= 1
        self._last = (index, finish_reason(answer.completion))
        if self._running:
            self._tell(self.finish(*self._last))

    def end(self, outcome: Outcome) -> None:
        """Tell the end of the last choice, which waits for the account of all, and what they cost."""
        self._tell(self.finish(*self._last, optillm=outcome.extension))
        if self._options.include_usage:
            self._tell(self.bare(usage=usage_of(outcome.usage)))

    def watchers(self, index: int) -> Sequence[Sink]:
        return [self._event] if self._options.include_events else []

    def _event(self, event: Event) -> None:
        if not isinstance(event, TokensDecoded):  # they are what the deltas are made of
            self._tell(self.bare(optillm_event=event.model_dump(mode="json")))


class ChatStream(_Stream[ChatCompletionChunk]):
    """Chunks of a chat completion.

    Args:
        opened: the conversation ends inside a thought, which the answer goes on with.
    """

    def __init__(
        self,
        call: Call,
        shape: Shape,
        options: StreamOptions,
        tell: Callable[[ChatCompletionChunk], None],
        *,
        opened: bool,
    ) -> None:
        super().__init__(call, shape, options, tell)
        self._spoken = [Spoken(opened=opened) for _ in call.prompts]
        for index in range(len(call.prompts)):
            tell(shape.chunk(index, {"role": "assistant", "content": ""}))

    def said(self, index: int, delta: OutputTextDelta) -> None:
        self._say(index, *self._spoken[index].add(delta.delta), delta)

    def whole(self, index: int, answer: Answer) -> None:
        if self._optimizer:
            self._say(index, "", answer.completion.answer, answer.completion)
        else:
            self._say(index, *self._spoken[index].add("", is_last=True))

    def finish(self, index: int, reason: str, **fields: Any) -> ChatCompletionChunk:
        return self._shape.chunk(index, {}, finish=reason, **fields)

    def bare(self, **fields: Any) -> ChatCompletionChunk:
        return self._shape.bare_chunk(**fields)

    def watchers(self, index: int) -> Sequence[Sink]:
        narrator = Narrator(lambda text: self._say(index, text, ""))
        return [*super().watchers(index), *([narrator] if self._optimizer else [])]

    def _say(self, index: int, thought: str, answer: str, said: Any = None) -> None:
        delta = {name: text for name, text in (("reasoning_content", thought), ("content", answer)) if text}
        if delta or (said and self._shape.alternatives is not None):
            self._tell(self._shape.chunk(index, delta, said))


class TextStream(_Stream[TextCompletion]):
    """Chunks of a completion as of old; of an optimizer, only its answer."""

    def said(self, index: int, delta: OutputTextDelta) -> None:
        self._tell(self._shape.text_chunk(index, delta.delta, delta))

    def whole(self, index: int, answer: Answer) -> None:
        if self._optimizer:
            self._tell(self._shape.text_chunk(index, answer.completion.text, answer.completion))

    def finish(self, index: int, reason: str, **fields: Any) -> TextCompletion:
        return self._shape.text_chunk(index, "", finish=reason, **fields)

    def bare(self, **fields: Any) -> TextCompletion:
        return self._shape.bare_text_chunk(**fields)
