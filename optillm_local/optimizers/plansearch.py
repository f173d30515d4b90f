"""PlanSearch: search over plans in words before code is written."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, said, written
from optillm_local.optimizers.ranking import best_of
from optillm_local.optimizers.replies import code_in, lines
from optillm_local.prompts import render


@frozen_options
class PlanSearch(Optimizer):
    """Observations, observations that follow from them, a solution in words, and a program: n times side by side.

    Of several programs the one with the highest score is returned, each scored when it is written; codelion's
    optillm makes its plans in turn and returns all programs. 3 and 2 observations are its defaults.
    """

    name: ClassVar[str] = "plansearch"
    description: ClassVar[str] = "observations, what follows from them, a plan in words, and a program"
    source: ClassVar[str] = (
        "Wang et al., Planning in Natural Language Improves LLM Search for Code Generation, 2024"
    )

    n: int = Field(default=1, ge=1, le=256, description="plans to follow side by side")
    observations: int = Field(default=3, ge=1, le=32, description="first observations to ask for")
    derived: int = Field(default=2, ge=0, le=32, description="observations to derive from them; 0 derives none")
    scorer: ScorerOption = Field(default=PCorrect(), description="chooses among several programs; a scorer")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        return await best_of(self.n, partial(self._program, prompt, client), self.scorer, prompt, client)

    async def _program(self, prompt: Prompt, client: ModelClient, number: int) -> Solution:
        """One plan and the program that follows it; the plan if there is no program."""

        def step(name: str, **about: Any) -> Prompt:
            return prompt.instructed(render(f"plansearch/{name}", **about)).step(name, number)

        seen = lines(said(await ask(step("observe", count=self.observations), client)))
        if self.derived:
            seen += lines(said(await ask(step("derive", observations=seen, count=self.derived), client)))
        plan = await written(step("plan", observations=seen), client, agent=number)
        implement = step("implement", plan=plan.answer)
        program = await written(implement, client, plan, agent=number, read=lambda one: code_in(said(one)))
        return program if program.answer else plan
