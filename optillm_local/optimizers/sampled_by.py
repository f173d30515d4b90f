"""An optimizer as a way to sample."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Choice, Completed, Completion, ResponseEvent, Score
from optillm_local.core.concurrency import UNNEEDED
from optillm_local.core.errors import BudgetExceeded, NoSolutions
from optillm_local.core.generation import Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.streaming import StreamingClient
from optillm_local.core.usage import EngineStats, TokenUsage


def as_completion(solution: Solution) -> Completion:
    """A solution as if it had been sampled: with the tokens it was written in, where it was written in one go."""
    text, wrote = solution.reasoning or solution.answer, solution.completion
    if wrote and wrote.text == text:
        return replace(wrote, answer=solution.answer)
    finish = wrote.finish_reason if wrote else "stop"
    return Completion(text, (), finish, TokenUsage(completion=solution.token_count), answer=solution.answer)


class SampledBy(StreamingClient):
    """A model whose every sequence is the answer of an optimizer; what that asks for is accounted for as its own.

    So every optimizer is a way to sample: best of n over answers that were made to think longer, or a vote among
    reflections. An answer comes as a whole, without deltas; it is empty where there is none, and aborted where the
    budget does not suffice for one. Probabilities are the model's.
    """

    def __init__(self, optimizer: Optimizer, client: ModelClient) -> None:
        self._optimizer, self._client = optimizer, client
        self.model, self.virtual_time = client.model, client.virtual_time

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        # A seed far from its siblings', because the optimizer may draw several that follow each other.
        asked = prompt.step(self._optimizer.name, prompt.sampling.seed)
        try:
            said = as_completion(await self._optimizer.optimize(asked, self._client))
        except NoSolutions:  # its siblings may have some
            said = Completion("", (), "stop", TokenUsage())
        yield Completed(said)

    @asynccontextmanager
    async def _generation(self, prompts: Sequence[Prompt], report_every: int) -> AsyncIterator[Generation]:
        async with self._open(prompts, report_every) as group:
            yield _UntilAnswered(group, len(prompts))

    async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Choice:
        return await self._client._choose(prompt, options)

    async def _score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        return await self._client._score(prompt, continuations)

    def encode(self, text: str) -> tuple[int, ...]:
        return self._client.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._client.decode(token_ids)

    def stats(self) -> EngineStats:
        return self._client.stats()

    def clock(self) -> float:
        return self._client.clock()

    def clock_held(self) -> AbstractContextManager[None]:
        return self._client.clock_held()


class _UntilAnswered(Generation):
    """Answers as they come, until all are there. If there are none because the budget is spent, that is raised."""

    def __init__(self, inner: Generation, outstanding: int) -> None:
        self._inner, self._outstanding = inner, outstanding
        self._spent: BudgetExceeded | None = None
        self._is_empty = True

    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        self._inner.stop(index, because)

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        while self._outstanding:
            try:
                index, event = await anext(self._inner)
            except BudgetExceeded as why:  # one of the sequences, which is aborted; its siblings may have answers
                self._spent = why
                continue
            if isinstance(event, Completed):
                self._outstanding -= 1
                self._is_empty &= not event.completion.text
            return index, event
        raise self._spent if self._spent and self._is_empty else StopAsyncIteration
