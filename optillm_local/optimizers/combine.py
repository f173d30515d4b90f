"""Optimizers made of optimizers: one after the other, side by side, or one as the way in which another samples."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, ClassVar

from pydantic import Field

from optillm_local.answers import AnswerClasses, Tally, extract_answer
from optillm_local.confidence import PCorrect, ProbabilityOption
from optillm_local.core.client import ModelClient
from optillm_local.core.concurrency import Stoppable, each
from optillm_local.core.errors import BudgetExceeded, NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import selected
from optillm_local.optimizers.sampled_by import SampledBy, as_completion
from optillm_local.prompts import render

Members = Annotated[tuple[Optimizer, ...], Field(min_length=2, description="what it is made of")]


@frozen_options
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

    Once the answers that are outstanding cannot change the majority, they are aborted. Who has no solution, or no
    budget left for one, abstains. codelion's `|` returns all answers and decides nothing.
    """

    name: ClassVar[str] = "vote"
    symbol: ClassVar[str] = "|"
    description: ClassVar[str] = "side by side, then a vote weighted by P(correct)"

    scorer: ProbabilityOption = Field(default=PCorrect(), description="weighs the votes")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt, votes = Prompt.of(query), _Votes(len(self.members))
        with Stoppable() as voting:

            async def answer(place: int) -> None:
                try:
                    await votes.add(place, await self._answer(place, prompt, client))
                except (NoSolutions, BudgetExceeded) as why:
                    votes.abstained.append(why)
                if votes.are_decided:
                    voting.stop("the vote was decided")

            await each(answer, range(len(self.members)))
        return votes.elect()

    async def _answer(self, place: int, prompt: Prompt, client: ModelClient) -> Solution:
        """A member's answer, its score what it weighs; nothing if it cannot be judged."""
        member, weight = self.members[place], math.nan
        with span(member.name):
            solution = await member.optimize(prompt.step(member.name, place), client)
            with suppress(BudgetExceeded):
                [weight] = await self.scorer.score(prompt, [as_completion(solution)], client)
        return revise(solution.but(verification_score=0.0 if math.isnan(weight) else weight))


class _Votes:
    """Solutions of `size` members by their place, and the class of each answer."""

    def __init__(self, size: int) -> None:
        self._size, self._classes = size, AnswerClasses()
        self._solutions: dict[int, Solution] = {}
        self._choices: dict[int, int | None] = {}
        self.abstained: list[Exception] = []

    @property
    def outstanding(self) -> int:
        """Members that have not ended."""
        return self._size - len(self._solutions) - len(self.abstained)

    @property
    def are_decided(self) -> bool:
        """Whether those that are outstanding cannot change the winner, a vote weighing 1 at most.

        A tie might go to any of them: to the member that comes first, whenever it answers.
        """
        return 0 < self.outstanding < self.tally().margin

    async def add(self, place: int, solution: Solution) -> None:
        """Count a member's answer."""
        self._choices[place] = await self._classes.add(extract_answer(solution.answer) or solution.answer)
        self._solutions[place] = solution

    def tally(self) -> Tally:
        """The count, in the order of the members."""
        places = sorted(self._solutions)
        weights = [self._solutions[place].verification_score for place in places]
        return Tally.of([self._choices[place] for place in places], weights)

    def elect(self) -> Solution:
        """Of the solutions with the winning answer the one of the most weight.

        Raises:
            BudgetExceeded, NoSolutions: there is no solution.
        """
        if not self._solutions:
            spent = (why for why in self.abstained if isinstance(why, BudgetExceeded))
            raise next(spent, NoSolutions("none of the optimizers has a solution"))
        tally = self.tally()
        voters = [one for place, one in sorted(self._solutions.items()) if self._choices[place] == tally.winner]
        selection = f"{len(voters)} of {len(self._solutions)} optimizers agree"
        selection += f"; {len(self.abstained)} without a solution" if self.abstained else ""
        selection += f"; {self.outstanding} aborted once the vote was decided" if self.outstanding else ""
        return selected(max(voters, key=lambda one: one.verification_score), selection, share=tally.share)


@frozen_options
class Over(_Combined):
    """One as the way in which another samples: `best_of_n@thinkdeeper` is the best of n long thoughts."""

    name: ClassVar[str] = "over"
    symbol: ClassVar[str] = "@"
    description: ClassVar[str] = "the first, with every sample of it drawn by the next"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        outer, *inner = self.members
        for member in reversed(inner):
            client = SampledBy(member, client)
        return await outer.optimize(query, client)
