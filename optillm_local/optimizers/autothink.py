"""Think as long as the question needs: its difficulty decides the budget for thinking."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.thinkdeeper import Phrases, ThinkDeeper
from optillm_local.prompts import render

Limits = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
"""Tokens of thinking, at least and at most."""

PHRASES = (
    "Wait,",
    "Alternatively,",
    "However,",
    "Additionally,",
    "Let's consider,",
    "On second thought,",
    "Actually,",
    "Furthermore,",
    "Looking at it differently,",
    "To be thorough,",
)
"""As codelion's optillm has them."""


@frozen_options
class AutoThink(Optimizer):
    """Ask the model whether the question is difficult, and let it think briefly or at length (`thinkdeeper`).

    One read gives P(Yes). codelion's optillm downloads a classifier, or counts words such as "why", and pushes
    hidden states of one small model along steering vectors; neither is possible for any model that one may run.
    max_tokens, which it ignores, caps the budget here.
    """

    name: ClassVar[str] = "autothink"
    description: ClassVar[str] = "one answer after a thought whose length suits the question"
    source: ClassVar[str] = "optillm autothink"

    low: Limits = Field(default=(256, 1024), description="tokens of thinking for simple questions")
    high: Limits = Field(default=(1024, 4096), description="tokens of thinking for difficult questions")
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="P(difficult) from which a question is difficult"
    )
    max_thoughts: int = Field(default=64, ge=1, description="how often at most a thought is begun")
    phrases: Phrases = Field(
        default=PHRASES, description="put in the place of an end that comes too early, by turns"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        with span("rate"):
            asked = prompt.instructed(render("autothink/difficult")).but(log_tag="rate")
            difficult = (await client.choose(asked, ("Yes", "No")))["Yes"]
        least, most = self.high if difficult >= self.threshold else self.low
        thinker = ThinkDeeper(
            min_thinking=least, max_thinking=most, max_thoughts=self.max_thoughts, phrases=self.phrases
        )
        solution = await thinker.optimize(prompt, client)
        return revise(solution.but(metadata={"difficult": difficult}))
