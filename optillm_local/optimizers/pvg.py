"""Prover-verifier game: provers that help and provers that deceive, and a verifier that scores both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import Levels, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import NoSolutions
from optillm_local.core.events import AnswerSelected
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, revise, span
from optillm_local.prompts import render

COOLING, COOLEST = 0.1, 0.2
"""How much cooler each round is than the one before it, and where that ends (codelion's optillm)."""


@frozen_options
class PVG(Optimizer):
    """Rounds of a game: helpful and sneaky provers answer side by side, and a verifier scores each at once.

    Between rounds the question is said in other words, which build on the best helpful answer and warn of the
    mistake in the most convincing sneaky one. The verifier sees neither roles nor other words: only the user's
    question and an answer. 2 rounds of 3 helpful and 3 sneaky answers at temperature 0.7, 0.1 less each
    round, are codelion's optillm. Unlike there, a sneaky answer never wins; none is sampled in the last round, as
    nobody would learn from it; and scores are read, not written.
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
                await game.play(asked, number, ("helpful",) if is_last else ("helpful", "sneaky"))
            if is_last or game.is_over:
                break
            with span("refine"):
                asked = await game.refined(number)
        return game.winner()


class _Game:
    """The answers of one run, by round and place."""

    def __init__(self, options: PVG, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self._helpful: dict[tuple[int, int], Solution] = {}
        self._sneaky: dict[tuple[int, int], Solution] = {}
        self.is_over = False

    async def play(self, asked: Prompt, number: int, roles: tuple[str, ...]) -> None:
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
                if isinstance(event, Completed) and event.completion.text.strip():
                    role, place = roles[index // n], (number, index % n)
                    answer = self._answer(role, place, temperature, event.completion)
                    judges.start_soon(self._judge, role, place, answer, group)

    def _answer(self, role: str, place: tuple[int, int], temperature: float, completion: Completion) -> Solution:
        number, index = place
        answer = Solution.of(
            completion, agent_id=f"{role}-{index}", phase=f"round-{number}", temperature=temperature
        )
        if role == "sneaky":  # no candidate
            return answer
        return self._helpful.setdefault(place, keep(answer))

    async def _judge(self, role: str, place: tuple[int, int], answer: Solution, group: Generation) -> None:
        if answer.completion is None or answer.completion.finish_reason == "abort":
            return
        # Without the role, which would give a sneaky answer away, though that costs its cached tokens.
        [score] = await self._options.scorer.score(self._prompt, [answer.completion], self._client)
        judged = answer.but(verification_score=score)
        if role == "sneaky":
            self._sneaky[place] = judged
            return
        self._helpful[place] = revise(judged)
        if self._options.enough is not None and score >= self._options.enough:
            self.is_over = True
            group.stop(because=f"{self._options.scorer.description} {score:.3f} is enough")

    async def refined(self, number: int) -> Prompt:
        """The question with what this round has taught about it."""
        if not self._helpful:
            return self._prompt
        text = render("pvg/refine", best=_shown(_best(self._helpful)), sneaky=_shown(_best(self._sneaky)))
        asked = self._prompt.instructed(text).step("refine", number, at_most=1024, temperature=0.5)
        [refined] = await self._client.sample(asked)
        question = (refined.answer or refined.text).strip()
        return self._prompt.instructed(render("pvg/refined", question=question)) if question else self._prompt

    def winner(self) -> Solution:
        """The helpful answer with the highest score; of equals the first."""
        best, sneaky, by = _best(self._helpful), _best(self._sneaky), self._options.scorer.description
        if best is None:
            raise NoSolutions("no helpful prover has an answer")
        selection = f"highest {by} of {len(self._helpful)} helpful answers: {best.verification_score:.3f}"
        if sneaky:
            selection += f"; the most convincing sneaky one has {sneaky.verification_score:.3f}"
        here = current_span().id
        emit(AnswerSelected(span_id=here, solution_id=best.id, answer=best.answer, selection=selection))
        return best.but(metadata={"selection": selection})


def _best(answers: Mapping[tuple[int, int], Solution]) -> Solution | None:
    def score(place: tuple[int, int]) -> float:
        known = answers[place].verification_score
        return -math.inf if math.isnan(known) else known

    return answers[max(sorted(answers), key=score)] if answers else None


def _shown(answer: Solution | None) -> str:
    """The answer as it is quoted, without its thinking."""
    return answer.answer if answer else ""
