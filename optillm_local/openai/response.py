"""Answers in the `openai` package's own types."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from openai.types import Completion as TextCompletion
from openai.types import CompletionChoice, CompletionUsage, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs as TextLogprobs

from optillm_local.core.completion import Completion, OutputTextDelta
from optillm_local.core.solution import plain
from optillm_local.core.usage import TokenUsage

Decode = Callable[[Sequence[int]], str]
Said = Completion | OutputTextDelta

_IMPOSSIBLE = -9999.0
"""What OpenAI's API says in the place of minus infinity, which JSON cannot."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: what was said last, and what the optimizer says of it."""

    completion: Completion
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All choices and what they cost together."""

    answers: Sequence[Answer]
    usage: TokenUsage
    about: dict[str, Any]

    @property
    def extension(self) -> dict[str, Any]:
        """The field `optillm`."""
        choices = [answer.about for answer in self.answers]
        found: dict[str, Any] = plain({**self.about, "discarded_tokens": self.usage.discarded, "choices": choices})
        return found


@dataclass(frozen=True, slots=True)
class Shape:
    """What all chunks of an answer, or the answer, have in common.

    Attributes:
        model: what the request called the model.
        alternatives: how many are listed per token; None: no log-probabilities.
        decode: the text of token ids.
    """

    model: str
    alternatives: int | None
    decode: Decode
    metadata: dict[str, str] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def chat(self, outcome: Outcome) -> ChatCompletion:
        """A whole chat completion."""
        choices = [
            {
                "index": index,
                "finish_reason": finish_reason(answer.completion),
                "logprobs": self._chat_logprobs(answer.completion),
                "message": _message(answer.completion),
            }
            for index, answer in enumerate(outcome.answers)
        ]
        return ChatCompletion.model_validate(
            {
                **self._about("chatcmpl", "chat.completion"),
                "choices": choices,
                "usage": usage_of(outcome.usage),
                "optillm": outcome.extension,
                "metadata": self.metadata,
            }
        )

    def chunk(
        self, index: int, delta: dict[str, Any], said: Said | None = None, finish: str | None = None, **fields: Any
    ) -> ChatCompletionChunk:
        """A piece of one choice; `said` has the tokens of it."""
        logprobs = self._chat_logprobs(said) if said else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self.bare_chunk(choices=[choice], **fields)

    def bare_chunk(self, **fields: Any) -> ChatCompletionChunk:
        """A chunk without choices, but for those given."""
        return ChatCompletionChunk.model_validate(
            {**self._about("chatcmpl", "chat.completion.chunk"), "choices": [], **fields}
        )

    def text(self, outcome: Outcome) -> TextCompletion:
        """A whole completion as of old."""
        choices = [
            {
                "index": index,
                "text": answer.completion.text,
                "logprobs": self._text_logprobs(answer.completion),
                "finish_reason": finish_reason(answer.completion),
            }
            for index, answer in enumerate(outcome.answers)
        ]
        return TextCompletion.model_validate(
            {
                **self._about("cmpl", "text_completion"),
                "choices": choices,
                "usage": usage_of(outcome.usage),
                "optillm": outcome.extension,
            }
        )

    def text_chunk(
        self, index: int, text: str, said: Said | None = None, finish: str | None = None, **fields: Any
    ) -> TextCompletion:
        """A piece of one choice as of old."""
        logprobs = self._text_logprobs(said) if said else None
        # Not validated: a choice that goes on has no reason to finish, which OpenAI's own type forbids.
        choice = CompletionChoice.model_construct(
            index=index,
            text=text,
            logprobs=logprobs,
            finish_reason=finish,  # type: ignore[arg-type]
        )
        return self.bare_text_chunk(choices=[choice], **fields)

    def bare_text_chunk(self, **fields: Any) -> TextCompletion:
        """A chunk as of old without choices, but for those given."""
        about: dict[str, Any] = {**self._about("cmpl", "text_completion"), "choices": [], "usage": None, **fields}
        return TextCompletion.model_construct(**about)

    def _about(self, kind: str, name: str) -> dict[str, Any]:
        return {"id": f"{kind}-{self.id}", "object": name, "created": self.created, "model": self.model}

    def _chat_logprobs(self, said: Said) -> dict[str, Any] | None:
        if self.alternatives is None:
            return None
        listed = []
        for token, logprob, top in _tokens(said):
            told = [TopLogprob(**self._token(*one)) for one in top[: self.alternatives]]
            listed.append(ChatCompletionTokenLogprob(**self._token(token, logprob), top_logprobs=told))
        return {"content": listed}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.decode([token])
        return {"token": text, "bytes": list(text.encode()), "logprob": logprob}

    def _text_logprobs(self, said: Said) -> TextLogprobs | None:
        if self.alternatives is None:
            return None
        tokens, sure, likeliest, offsets, offset = [], [], [], [], 0
        for token, logprob, top in _tokens(said):
            tokens.append(self.decode([token]))
            sure.append(logprob)
            likeliest.append({self.decode([one]): found for one, found in top[: self.alternatives]})
            offsets.append(offset)
            offset += len(tokens[-1])
        return TextLogprobs(text_offset=offsets, token_logprobs=sure, tokens=tokens, top_logprobs=likeliest)


def usage_of(usage: TokenUsage) -> CompletionUsage:
    """Token counts: the sum over every call that was made, and so of a prompt as often as it was asked."""
    return CompletionUsage.model_validate(
        {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.total,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        }
    )


def _tokens(said: Said) -> Iterator[tuple[int, float, tuple[tuple[int, float], ...]]]:
    """Each token with its log-probability and the likeliest in its place."""
    known = (_IMPOSSIBLE if math.isnan(one) else max(one, _IMPOSSIBLE) for one in said.logprobs)
    return zip(said.token_ids, known, said.top_logprobs or repeat(()), strict=False)


def _message(completion: Completion) -> dict[str, str]:
    thought = {"reasoning_content": completion.reasoning} if completion.reasoning else {}
    return {"role": "assistant", "content": completion.answer, **thought}


def finish_reason(completion: Completion) -> str:
    """`length` for all that was cut: at its own limit or at that of a budget."""
    return "stop" if completion.finish_reason == "stop" else "length"


def model(name: str, created: int) -> Model:
    """An entry of the list of models."""
    return Model(id=name, created=created, object="model", owned_by="optillm-local")
