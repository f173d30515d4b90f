"""OpenAI's calls over a model: what the drop-in client and the server share."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openai.types import Completion as TextCompletion
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from optillm_local.core.background import told_by
from optillm_local.core.budget import Budget
from optillm_local.core.client import ModelClient
from optillm_local.core.events import Sink
from optillm_local.core.prompt import Prompt
from optillm_local.core.thinking import is_thinking
from optillm_local.openai.answering import Call, answered
from optillm_local.openai.approach import NONE, Approach, Known, without_tags
from optillm_local.openai.request import ChatRequest, CompletionRequest, StreamOptions
from optillm_local.openai.response import Shape, model
from optillm_local.openai.streams import ChatStream, TextStream


class Completions:
    """OpenAI's calls over a model.

    Args:
        client: the model; every call shares its batch.
        names: what the model is called, the first one in the place of none; empty: `client.model`.
        adapters: names of LoRA modules, which are asked for as models.
        approach: the optimizer that answers where a request names none; the model itself by default.

    A call takes a request, or the mapping it is made of (`ChatRequest.of` checks it), limits beside the request's
    own, and sinks for the events of its runs.

    Raises, from every call: RequestRejected and InvalidConfiguration (`field`, `value`, `remedy`), ModelNotFound,
    BudgetExceeded (the budget was spent before anything was written), EngineDead, or what else kept an optimizer
    from an answer; `openai.failures` has their statuses.
    """

    def __init__(
        self,
        client: ModelClient,
        *,
        names: Sequence[str] = (),
        adapters: Sequence[str] = (),
        approach: str = NONE,
    ) -> None:
        self.client = client
        self._known = Known(tuple(names) or (client.model,), tuple(adapters), approach)
        self._started = int(time.time())

    async def chat(
        self, request: ChatRequest | Mapping[str, Any], *, budget: Budget | None = None, sinks: Sequence[Sink] = ()
    ) -> ChatCompletion:
        """A chat completion. Its field `optillm` says which optimizer answered, why so, and what it threw away."""
        asked = request if isinstance(request, ChatRequest) else ChatRequest.of(request)
        call, shape = self._prepared(asked, budget)
        return shape.chat(await answered(call, self.client, sinks))

    def stream_chat(
        self, request: ChatRequest | Mapping[str, Any], *, budget: Budget | None = None, sinks: Sequence[Sink] = ()
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """A chat completion in pieces. What is wrong with a request is raised here, before there is a stream.

        A model's text comes as it is decoded, and what it thinks as `reasoning_content`. Of an optimizer, the
        sequences come as `reasoning_content`, one after the other, and its answer once it is chosen. The last
        chunk that ends a choice has `optillm`, and the usage comes last. A reader that leaves ends the run.
        """
        asked = request if isinstance(request, ChatRequest) else ChatRequest.of(request)
        call, shape = self._prepared(asked, budget)

        async def work(tell: Callable[[ChatCompletionChunk], None]) -> None:
            opened = is_thinking(call.prompts[0].messages[-1].content)
            stream = ChatStream(call, shape, asked.stream_options or StreamOptions(), tell, opened=opened)
            stream.end(await answered(call, self.client, sinks, stream))

        return told_by(work)

    async def complete(
        self,
        request: CompletionRequest | Mapping[str, Any],
        *,
        budget: Budget | None = None,
        sinks: Sequence[Sink] = (),
    ) -> TextCompletion:
        """A completion as of old."""
        asked = request if isinstance(request, CompletionRequest) else CompletionRequest.of(request)
        call, shape = self._prepared(asked, budget)
        return shape.text(await answered(call, self.client, sinks))

    def stream_complete(
        self,
        request: CompletionRequest | Mapping[str, Any],
        *,
        budget: Budget | None = None,
        sinks: Sequence[Sink] = (),
    ) -> AsyncGenerator[TextCompletion, None]:
        """A completion as of old in pieces; of an optimizer, only its answer."""
        asked = request if isinstance(request, CompletionRequest) else CompletionRequest.of(request)
        call, shape = self._prepared(asked, budget)

        async def work(tell: Callable[[TextCompletion], None]) -> None:
            stream = TextStream(call, shape, asked.stream_options or StreamOptions(), tell)
            stream.end(await answered(call, self.client, sinks, stream))

        return told_by(work)

    def models(self) -> list[Model]:
        """The model by each of its names, and its adapters. Any optimizer may go before any of them."""
        return [model(name, self._started) for name in (*self._known.names, *self._known.adapters)]

    def _prepared(self, asked: ChatRequest | CompletionRequest, limits: Budget | None) -> tuple[Call, Shape]:
        prompts, tags = [], []
        for prompt in asked.prompts():
            messages, tag = without_tags(prompt.messages)
            prompts.append(replace(prompt, messages=messages))
            tags.append(tag)
        approach = self._known.approach_of(asked, tags[0])
        choices = [choice for prompt in prompts for choice in _fan(prompt, asked, approach)]
        shape = Shape(
            model=asked.model or approach.model,
            alternatives=asked.alternatives,
            decode=self.client.decode,
            metadata=asked.metadata,
        )
        return Call(choices, approach.optimizer, _tighter(asked.budget, limits or Budget())), shape


def _fan(prompt: Prompt, asked: ChatRequest | CompletionRequest, approach: Approach) -> list[Prompt]:
    """One prompt per choice.

    Seeds of a model's choices follow each other. Those of an optimizer's are far apart, because it may itself draw
    sequences whose seeds follow each other.
    """
    prompt = replace(prompt, adapter=approach.adapter)
    if approach.optimizer is None:
        return prompt.but(logprobs=asked.alternatives).fan(asked.n)
    first = prompt.but(logprobs=asked.alternatives or 0).seeded()
    return [first, *(first.step("choice", index) for index in range(1, asked.n))]


def _tighter(one: Budget, other: Budget) -> Budget:
    """Both limits at once."""
    tokens = [budget.tokens for budget in (one, other) if budget.tokens is not None]
    seconds = [budget.seconds for budget in (one, other) if budget.seconds is not None]
    return Budget(min(tokens, default=None), min(seconds, default=None))
