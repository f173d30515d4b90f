"""Chain of thought with reflection: one call whose prompt asks for steps, a check of them, and an answer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, candidate, first_whole, said, selected
from optillm_local.optimizers.replies import inside
from optillm_local.prompts import render


@frozen_options
class ChainOfThoughtReflection(Optimizer):
    """The model thinks, reflects on its thoughts, and answers, each inside tags; the answer is returned.

    Temperature 0.6 is codelion's optillm, which puts the instruction into the system message. Ours stands behind
    the question. A reply without the tags is the answer as it is.
    """

    name: ClassVar[str] = "cot_reflection"
    description: ClassVar[str] = "one call that thinks, reflects and answers inside tags"
    source: ClassVar[str] = "optillm cot_reflection"

    temperature: float = Field(default=0.6, ge=0, le=2, description="of the call")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        asked = Prompt.of(query).instructed(render("cot_reflection/reflect"))
        asked = asked.step("reflect", temperature=self.temperature)
        reply = await ask(asked, client)
        answer = inside(reply.answer, "output")
        reflected = candidate(reply, asked, "reflect", answer=answer or said(reply))
        return selected(
            first_whole([reflected]), "the output" if answer else "the whole text: no output is marked"
        )
