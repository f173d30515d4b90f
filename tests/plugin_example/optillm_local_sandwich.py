"""An optimizer of another package, on the same vocabulary as the built-in ones."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import keep, span


@frozen_options
class Sandwich(Optimizer):
    """n drafts side by side, each followed by a remark of the user and a second answer; the best second answer."""

    name: ClassVar[str] = "sandwich"
    description: ClassVar[str] = "n drafts, a remark between, and the best second answer"

    n: int = Field(default=2, ge=1, le=64, description="sandwiches to make")
    remark: str = Field(default="Are you sure? Answer again.", description="what is said about each draft")
    scorer: ScorerOption = Field(default=PCorrect(), description="what the best is best by")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))

        async def second(draft: Completion) -> Completion:
            asked = prompt.then(draft.message(), Message("user", self.remark))
            [answer] = await client.sample(asked.step("second", draft.seed))
            return answer

        with span("draft"):
            drafts = await client.sample(prompt, n=self.n)
        with span("answer"):
            answers = await each(second, drafts)
        with span("judge"):
            scores = await self.scorer.score(prompt, answers, client)
        made = [
            keep(Solution.of(answer, verification_score=score))
            for answer, score in zip(answers, scores, strict=True)
        ]
        best = max(made, key=lambda one: one.verification_score)
        return best.but(metadata={"selection": f"highest {self.scorer.description} of {self.n} sandwiches"})
