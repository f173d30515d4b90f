"""Prover-verifier game: provers that help and provers that deceive, and a verifier that scores both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import Levels, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed
from optillm_local.core.concurrency import task_group
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import ask, candidate, said
from optillm_local.optimizers.ranking import Ranking
from optillm_local.prompts import render

COOLING, COOLEST = 0.1, 0.2
"""How much cooler each round is than the one before it, and where that ends (codelion's optillm)."""

REFINE_TEMPERATURE, REFINE_TOKENS = 0.5, 1024
"""Of the question in other words; codelion's."""


@frozen_options
class PVG(Optimizer):
    """Rounds of a game: helpful and sneaky provers answer side by side, and a verifier scores each at once.

    Between rounds the question is said in other words, which build on the best helpful answer and warn of the
    mistake in the most convincing sneaky one. The verifier sees neither roles nor other words: only the user's
    question and an answer. How well it tells the roles apart is in the solution's metadata as `separation`: the
    probability that a helpful answer scores higher than a sneaky one of its round. At 0.5 its scores mean little.

    2 rounds of 3 helpful and 3 sneaky answers at temperature 0.7, 0.1 less each round, are codelion's optillm.
    Unlike there, a sneaky answer never wins; none is sampled in the last round, as nobody would learn from it; and
    scores are read, not written.
    """

    name: ClassVar[str] = "pvg"
    description: ClassVar[str] = "prover-verifier game: helpful and sneaky answers, scored; the best helpful one"
    source: ClassVar[str] = "Kirchner et al., Prover-Verifier Games Improve Legibility, 2024; optillm pvg"

    n: int = Field(default=3, ge=1, le=1024, description="provers of each kind")
    rounds: int = Field(default=2, ge=1, le=64, description="rounds of the game")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the first round")
    scorer: PointwiseOption = Field(default=Levels(), description="the verifier: it scores each answer by itself")
    enough: float | None = Field(default=None, description="a score of a helpful answer that ends the game")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        asked, game = prompt, _Game(self, prompt, client)
        for number in range(self.rounds):
            is_last = number == self.rounds - 1
            with span("play"):
                await game.play(asked, number, ["helpful"] if is_last else ["helpful", "sneaky"])
            if is_last or game.helpful.is_settled:
                break
            asked = await game.refined(number)
        best = await game.helpful.best()
        return best.but(metadata={"separation": game.separation()})


class _Game:
    """The answers of one run, ranked by role."""

    def __init__(self, options: PVG, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self.helpful = Ranking(options.scorer, prompt, client, enough=options.enough)
        self.sneaky = Ranking(options.scorer, prompt, client)

    async def play(self, asked: Prompt, number: int, roles: Sequence[str]) -> None:
        """One round: all answer at once, and each answer is scored the moment it is finished."""
        n, first = self._options.n, self._options.temperature
        temperature = max(min(COOLEST, first), first - COOLING * number)
        prompts = [
            one
            for role in roles
            for one in asked.instructed(render(f"pvg/{role}")).step(role, number, temperature=temperature).fan(n)
        ]
        async with (
            self._client.generate(prompts, report_every=AT_THE_END) as group,
            task_group() as judges,
        ):
            async for index, event in group:
                if not isinstance(event, Completed):
                    continue
                # Scored without the role: it would give a sneaky answer away, though its cached tokens are lost.
                place, phase = number * n + index % n, f"round-{number}"
                if index < n:
                    answer = candidate(event.completion, prompts[index], phase, index)
                    judges.start_soon(self.helpful.enter, place, answer, group)
                else:  # no candidate
                    lie = Solution.of(event.completion, answer=said(event.completion), phase=phase)
                    judges.start_soon(self.sneaky.enter, place, lie)

    async def refined(self, number: int) -> Prompt:
        """The question with what this round has taught about it."""
        best, sneaky = self.helpful.leader, self.sneaky.leader
        if best is None:
            return self._prompt
        told = self._prompt.instructed(
            render("pvg/refine", best=best.answer, sneaky=sneaky.answer if sneaky else "")
        )
        asked = told.step("refine", number, at_most=REFINE_TOKENS, temperature=REFINE_TEMPERATURE)
        question = said(await ask(asked, self._client))
        return self._prompt.instructed(render("pvg/refined", question=question)) if question else self._prompt

    def separation(self) -> float:
        """P(a helpful answer scores above a sneaky one of its round); ties count half, NaN without a pair."""
        pairs = itertools.product(self.helpful.candidates, self.sneaky.candidates)
        margins = [
            one.verification_score - other.verification_score for one, other in pairs if one.phase == other.phase
        ]
        wins = [0.5 * (margin > 0) + 0.5 * (margin >= 0) for margin in margins if not math.isnan(margin)]
        return fmean(wins) if wins else math.nan
