"""Optimizers made of optimizers: one after the other, side by side, or one as the way in which another samples."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from optillm_local.answers import AnswerClasses, Tally, extract_answer, is_decided
from optillm_local.confidence import PCorrect, ProbabilityOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Choice, Completed, Completion, ResponseEvent, Score
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import NoSolutions, RequestRejected
from optillm_local.core.events import AnswerSelected
from optillm_local.core.generation import EVERY_TOKEN, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, revise, span
from optillm_local.core.streaming import StreamingClient
from optillm_local.core.usage import EngineStats, TokenUsage
from optillm_local.prompts import render

Members = Annotated[tuple[Optimizer, ...], Field(min_length=2, description="what it is made of")]


def as_completion(solution: Solution) -> Completion:
    """A solution as if it had been sampled: with the tokens it was written in, where it was written in one go."""
    text, wrote = solution.reasoning or solution.answer, solution.completion
    if wrote and wrote.text == text:
        return replace(wrote, answer=solution.answer)
    return Completion(text, (), "stop", TokenUsage(completion=solution.token_count), answer=solution.answer)


class SampledBy(StreamingClient):
    """A model whose every sequence is the answer of an optimizer; what that asks for is accounted for as its own.

    So every optimizer is a way to sample: best of n over answers that were made to think longer, or a vote among
    reflections. Deltas come once, with the whole answer. Probabilities are the model's.
    """

    def __init__(self, optimizer: Optimizer, client: ModelClient) -> None:
        self._optimizer, self._client = optimizer, client
        self.model, self.virtual_time = client.model, client.virtual_time

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        # A seed far from its siblings', because the optimizer may draw several that follow each other.
        asked = prompt.step(self._optimizer.name, prompt.sampling.seed)
        yield Completed(as_completion(await self._optimizer.optimize(asked, self._client)))

    def generate(
        self, prompts: Sequence[Prompt], *, report_every: int = EVERY_TOKEN
    ) -> AbstractAsyncContextManager[Generation]:
        if not prompts:
            raise RequestRejected("prompts", [], "pass at least one prompt")
        return self._answering(prompts)

    @asynccontextmanager
    async def _answering(self, prompts: Sequence[Prompt]) -> AsyncIterator[Generation]:
        async with self._open(prompts, EVERY_TOKEN) as group:
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
    """Answers as they come, until all are there."""

    def __init__(self, inner: Generation, outstanding: int) -> None:
        self._inner, self._outstanding = inner, outstanding

    def stop(self, index: int | None = None, because: str = "") -> None:
        self._inner.stop(index)

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        if not self._outstanding:
            raise StopAsyncIteration
        index, event = await anext(self._inner)
        self._outstanding -= isinstance(event, Completed)
        return index, event


class _Combined(Optimizer):
    """Several optimizers as one; it is called by their names."""

    symbol: ClassVar[str]
    members: Members

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.symbol.join(member.name for member in self.members))


@frozen_options
class Then(_Combined):
    """One after the other: each answers the question again, with the answer before it as a draft.

    codelion's `&` hands on the answer in the place of the question, so that the next does not know what was asked.
    """

    name: ClassVar[str] = "then"
    symbol: ClassVar[str] = "&"
    description: ClassVar[str] = "one after the other, each with the answer before it as a draft"

    members: Members

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        first, *rest = self.members
        with span(first.name):
            solution = await first.optimize(prompt.step(first.name, 0), client)
        for place, member in enumerate(rest, start=1):
            draft = as_completion(solution).message()
            asked = prompt.then(draft, Message("user", render("combine/then"))).step(member.name, place)
            with span(member.name):
                solution = await member.optimize(asked, client)
        return solution


@frozen_options
class Vote(_Combined):
    """Side by side: all answer, each answer weighs what a scorer thinks of it, and equal answers add up.

    Once the answers that are outstanding cannot change the majority, they are aborted. Who has no solution
    abstains. codelion's `|` returns all answers and decides nothing.
    """

    name: ClassVar[str] = "vote"
    symbol: ClassVar[str] = "|"
    description: ClassVar[str] = "side by side, then a vote weighted by P(correct)"

    members: Members
    scorer: ProbabilityOption = Field(default=PCorrect(), description="weighs the votes")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt, votes = Prompt.of(query), _Votes()
        async with task_group() as tasks:

            async def answer(place: int, member: Optimizer) -> None:
                with span(member.name):
                    try:
                        solution = await member.optimize(prompt.step(member.name, place), client)
                    except NoSolutions:
                        votes.abstained += 1
                        return
                    [weight] = await self.scorer.score(prompt, [as_completion(solution)], client)
                await votes.add(place, solution, 0.0 if math.isnan(weight) else weight)
                if is_decided(votes.tally(), float(len(self.members) - votes.heard)):
                    tasks.cancel_scope.cancel()

            for place, member in enumerate(self.members):
                tasks.start_soon(answer, place, member)
        return votes.elect(len(self.members))


class _Votes:
    """Solutions of the members by their place, the class and the weight of each answer."""

    def __init__(self) -> None:
        self._classes = AnswerClasses()
        self._cast: dict[int, tuple[int | None, float]] = {}
        self.solutions: dict[int, Solution] = {}
        self.abstained = 0

    @property
    def heard(self) -> int:
        """Members that have ended, with a solution or without."""
        return len(self.solutions) + self.abstained

    async def add(self, place: int, solution: Solution, weight: float) -> None:
        """Count a member's answer."""
        choice = await self._classes.add(extract_answer(solution.answer) or solution.answer)
        self._cast[place] = choice, weight
        self.solutions[place] = revise(solution.but(verification_score=weight))

    def tally(self) -> Tally:
        """The count, in the order of the members: an earlier one wins a tie."""
        cast = [self._cast[place] for place in sorted(self._cast)]
        return Tally.of([choice for choice, _ in cast], [weight for _, weight in cast])

    def elect(self, members: int) -> Solution:
        """Of the solutions with the winning answer the one of the most weight."""
        if not self.solutions:
            raise NoSolutions("none of the optimizers has a solution")
        tally = self.tally()
        voters = [place for place in sorted(self._cast) if self._cast[place][0] == tally.winner]
        best = self.solutions[max(voters, key=lambda place: self._cast[place][1])]
        selection = f"{len(voters)} of {len(self._cast)} optimizers agree"
        if skipped := members - self.heard:
            selection += f"; {skipped} aborted once the vote was decided"
        here = current_span().id
        emit(AnswerSelected(span_id=here, solution_id=best.id, answer=best.answer, selection=selection))
        return best.but(metadata={"selection": selection, "share": tally.share})


@frozen_options
class Over(_Combined):
    """One as the way in which another samples: `best_of_n@thinkdeeper` is the best of n long thoughts."""

    name: ClassVar[str] = "over"
    symbol: ClassVar[str] = "@"
    description: ClassVar[str] = "the first, with every sample of it drawn by the next"

    members: Members

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        outer, *inner = self.members
        for member in reversed(inner):
            client = SampledBy(member, client)
        return await outer.optimize(query, client)
