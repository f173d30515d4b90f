"""CePO: plans, their executions, a review of these, and an answer; several times over, and the best of it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.concurrency import Stoppable, each
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, first_whole, is_whole, written
from optillm_local.optimizers.ranking import best_of
from optillm_local.prompts import render

DIRECT_TEMPERATURE, DIRECT_TOP_P = 0.1, 0.95
"""Of the answer without a plan, which is asked for if no plan was carried out; codelion's."""


@frozen_options
class CerebrasPlanning(Optimizer):
    """n times side by side: plan, carry the plans out, review what comes of it, answer; the best is returned.

    A plan is carried out the moment it is written. The first `executions` that are whole are reviewed; the plans
    and executions that still run by then are aborted. codelion's optillm waits for them and throws them away.

    An answer is judged when it is there, by reading P(correct); codelion asks for a rating of 0 or 1 in prose, and
    by mistake twice. Numbers and temperatures are those of its configuration, whose temperatures it does not use.
    """

    name: ClassVar[str] = "cepo"
    description: ClassVar[str] = "plans, executions, a review and an answer, several times; the best of them"
    source: ClassVar[str] = "Cerebras, CePO: Empowering Llama with Reasoning using Test-Time Compute, 2024"

    n: int = Field(default=3, ge=1, le=64, description="answers to choose from")
    plans: int = Field(default=6, ge=1, le=64, description="plans for each answer")
    executions: int = Field(default=3, ge=1, le=64, description="executions to review; the others are aborted")
    plan_temperature: float = Field(default=0.55, ge=0, le=2, description="of the plans")
    execution_temperature: float = Field(default=0.25, ge=0, le=2, description="of the executions")
    review_temperature: float = Field(default=0.1, ge=0, le=2, description="of the reviews")
    temperature: float = Field(default=0.0, ge=0, le=2, description="of the answers")
    scorer: ScorerOption = Field(default=PCorrect(), description="what the best is best by; a scorer")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        return await best_of(self.n, partial(self._answer, prompt, client), self.scorer, prompt, client)

    async def _answer(self, prompt: Prompt, client: ModelClient, number: int) -> Solution:
        """One answer; if it or the review fails, the step before stands in for it."""
        executions = await self._executions(prompt, client, number)
        if not executions[0].answer:
            return executions[0]
        told = render("cepo/review", executions=[one.answer for one in executions])
        asked = prompt.instructed(told).step("review", number, temperature=self.review_temperature)
        reviewed = first_whole([await written(asked, client, *executions, agent=number), *executions])
        told = render("cepo/answer", solution=reviewed.answer)
        asked = prompt.instructed(told).step("answer", number, temperature=self.temperature)
        return first_whole([await written(asked, client, reviewed, agent=number), reviewed])

    async def _executions(self, prompt: Prompt, client: ModelClient, number: int) -> list[Solution]:
        """The executions to review, in the order of their plans; without any, an answer that follows no plan."""
        found: dict[int, Solution] = {}
        with Stoppable() as rest:

            async def execute(plan: int) -> None:
                execution = await self._execution(prompt, client, number, plan)
                if execution and len(found) < self.executions:
                    found[plan] = execution
                if len(found) == self.executions:
                    rest.stop(f"{self.executions} executions are there")

            await each(execute, range(self.plans))
        if found:
            return [found[plan] for plan in sorted(found)]
        asked = prompt.step("direct", number, temperature=DIRECT_TEMPERATURE, top_p=DIRECT_TOP_P)
        return [await written(asked, client, agent=number)]

    async def _execution(self, prompt: Prompt, client: ModelClient, number: int, plan: int) -> Solution | None:
        """A plan, carried out; None if nothing comes of it."""
        asked = prompt.instructed(render("cepo/plan", question=prompt.question))
        asked = asked.step("plan", number, plan, temperature=self.plan_temperature)
        planned = await ask(asked, client)
        if not is_whole(planned):
            return None
        told = asked.then(planned.message(), Message("user", render("cepo/execute")))
        told = told.step("execute", number, plan, temperature=self.execution_temperature)
        execution = await written(told, client, agent=number)
        return execution if execution.completion and is_whole(execution.completion) else None
