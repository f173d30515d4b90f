"""An optimizer of another package, on the same vocabulary as the built-in ones."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, written
from optillm_local.optimizers.ranking import best_of


@frozen_options
class Sandwich(Optimizer):
    """n drafts side by side, each followed by a remark of the user and a second answer; the best second answer."""

    name: ClassVar[str] = "sandwich"
    description: ClassVar[str] = "n drafts, a remark between, and the best second answer"

    n: int = Field(default=2, ge=1, le=64, description="sandwiches to make")
    remark: str = Field(default="Are you sure? Answer again.", description="what is said about each draft")
    scorer: ScorerOption = Field(default=PCorrect(), description="what the best is best by; a scorer")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))

        async def sandwich(place: int) -> Solution:
            draft = await ask(prompt.step("draft", place), client)
            asked = prompt.then(draft.message(), Message("user", self.remark))
            return await written(asked.step("second", place), client, agent=place)

        return await best_of(self.n, sandwich, self.scorer, prompt, client)
