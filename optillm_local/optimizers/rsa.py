"""Recursive self-aggregation: a population of solutions, each generation made from subsets of the last."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import ClassVar, Self

import anyio
from pydantic import Field, model_validator

from optillm_local.confidence import ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.concurrency import each, task_group
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import candidate, ids, said
from optillm_local.optimizers.ranking import best_of
from optillm_local.optimizers.voting import Poll
from optillm_local.prompts import render


@frozen_options
class RecursiveSelfAggregation(Optimizer):
    """N solutions; T times, each of N new ones is written from K of the last, drawn at random; then a vote.

    Algorithm 1 of the paper. Who reads whom is drawn beforehand, so that a member is written once its own K
    sources are there, and not when a whole generation is; one that nobody reads is not written. A member that
    says nothing is replaced by its first source. Once the vote is decided, all that is still written is aborted.

    6, 3, 3 and the temperature are those of codelion's MARS, whose groups are all the same; ours are drawn at
    random and without replacement, as in the paper.
    """

    name: ClassVar[str] = "rsa"
    description: ClassVar[str] = "a population that is rewritten from random subsets of itself, and a vote"
    source: ClassVar[str] = (
        "Venkatraman et al., Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models, 2025"
    )

    population: int = Field(default=6, ge=1, le=256, description="solutions in each generation (N)")
    subset: int = Field(default=3, ge=1, le=256, description="solutions that each new one is written from (K)")
    loops: int = Field(default=3, ge=0, le=64, description="generations after the first (T)")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the aggregations")
    scorer: ScorerOption | None = Field(
        default=None, description="chooses from the last generation; without it they vote"
    )

    @model_validator(mode="after")
    def _has_enough(self) -> Self:
        if self.subset > self.population:
            raise InvalidConfiguration("subset", self.subset, f"must be at most population={self.population}")
        return self

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        run = _Run(self, self.scorer.sampled(prompt) if self.scorer else prompt, client)
        async with task_group() as tasks:
            for generation, number in run.sources():
                tasks.start_soon(run.write, generation, number)
            if self.scorer:
                return await best_of(self.population, run.last, self.scorer, prompt, client)
            return await run.vote()


class _Run:
    """The members of all generations, each written once those that it reads are there."""

    def __init__(self, options: RecursiveSelfAggregation, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self._members: dict[tuple[int, int], Solution] = {}  # by generation and number
        self._ended: dict[tuple[int, int], anyio.Event] = defaultdict(anyio.Event)
        self._running: set[Generation] = set()
        self._poll = Poll(options.population)

    def sources(self) -> set[tuple[int, int]]:
        """All members that the last generation rests on; what nobody reads need not be written."""
        found: set[tuple[int, int]] = set()
        readers = set(range(self._options.population))
        for generation in range(self._options.loops, 0, -1):
            readers = {source for reader in readers for source in self._drawn(generation, reader)}
            found |= {(generation - 1, source) for source in readers}
        return found

    async def write(self, generation: int, number: int) -> None:
        """Write a member, unless the vote is decided by then."""
        asked, sources = await self._asked(generation, number)
        if not self._poll.closed:
            completion = await self._sample(asked)
            member = candidate(completion, asked, asked.log_tag or "", number, parents=ids(sources))
            self._members[generation, number] = member if member.answer or not sources else sources[0]
        self._ended[generation, number].set()

    async def last(self, number: int) -> Solution:
        """A member of the last generation."""
        await self.write(self._options.loops, number)
        return self._members[self._options.loops, number]

    async def vote(self) -> Solution:
        """What most of the last generation state. Once that is decided, all that is still written is aborted."""

        async def hear(number: int) -> None:
            asked, sources = await self._asked(self._options.loops, number)
            if self._poll.closed:
                return
            path = await self._sample(asked)
            if path.finish_reason != "abort" and not said(path) and sources:
                path = sources[0].completion or path
            if await self._poll.add(number, path):
                for group in self._running:
                    group.stop(because=self._poll.stopped)

        try:
            await each(hear, range(self._options.population))
        except BudgetExceeded:
            if not self._poll.ballots:
                raise
        options, own = self._options, self._prompt.sampling.temperature
        return await self._poll.elect(options.temperature if options.loops else own)

    async def _asked(self, generation: int, number: int) -> tuple[Prompt, list[Solution]]:
        """What a member is asked, and the sources that this shows; waits for them."""
        sources = [(generation - 1, source) for source in self._drawn(generation, number)]
        for source in sources:
            await self._ended[source].wait()
        shown = [self._members[one] for one in sources if one in self._members and self._members[one].answer]
        if not shown:
            return self._prompt.step("propose", generation, number), []
        told = self._prompt.instructed(render("rsa/aggregate", candidates=[one.answer for one in shown]))
        return told.step("aggregate", generation, number, temperature=self._options.temperature), shown

    def _drawn(self, generation: int, number: int) -> list[int]:
        """Whom a member reads, without replacement; in order, so that equal beginnings are prefilled once."""
        if not generation:
            return []
        rng = random.Random(f"{self._prompt.sampling.seed}/{generation}/{number}")
        return sorted(rng.sample(range(self._options.population), self._options.subset))

    async def _sample(self, asked: Prompt) -> Completion:
        with span(asked.log_tag or ""):
            async with self._client.generate([asked], report_every=AT_THE_END) as group:
                self._running.add(group)
                [end] = [event async for _, event in group if isinstance(event, Completed)]
                self._running.discard(group)
        return end.completion
