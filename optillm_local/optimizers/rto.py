"""Round-trip optimization: write code, describe it, write it again from the description, and reconcile the two."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.answers.code import normal_code
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, asking, candidate, first_whole, said, selected, written
from optillm_local.optimizers.replies import code_in
from optillm_local.prompts import render

DESCRIPTION_TOKENS = 1024
"""Most tokens of the description; codelion's."""


@frozen_options
class RoundTripOptimization(Optimizer):
    """What survives a round trip through a description is what was meant; differences are worked out.

    The second code is written from the description alone. If it equals the first, that is the answer after three
    calls. Codes are compared without comments and layout, and Python by its syntax tree; codelion's optillm
    compares strings. The answer is always the code itself; codelion's is the whole reply where the codes differ.
    """

    name: ClassVar[str] = "rto"
    description: ClassVar[str] = "code, its description, code from the description, and both reconciled"
    source: ClassVar[str] = (
        "Allamanis et al., Unsupervised Evaluation of Code LLMs with Round-Trip Correctness, 2024; optillm rto"
    )

    temperature: float = Field(default=0.1, ge=0, le=2, description="of all calls")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query).but(temperature=self.temperature)
        asked = prompt.step("code")
        reply = await ask(asked, client)
        first = first_whole([candidate(reply, asked, "code", answer=_code(reply))])
        told = asked.then(reply.message(), Message("user", render("rto/describe")))
        description = said(await ask(told.step("describe", at_most=DESCRIPTION_TOKENS), client))
        if not description:
            return selected(first, "the first code: it was not described")
        # No candidate: it was not written for the question.
        second = _code(await ask(asking(prompt, description).step("recode"), client))
        if _form(first.answer) == _form(second):
            return selected(first, "both codes are the same")
        if not second:
            return selected(first, "the first code: none was written from its description")
        asked = prompt.instructed(render("rto/reconcile", first=first.answer, second=second)).step("reconcile")
        final = await written(asked, client, first, read=_code)
        best = first_whole([final, first])
        return selected(
            best, "two codes reconciled" if best is final else "the first code: no final one was written"
        )


def _code(reply: Completion) -> str:
    return code_in(said(reply))


def _form(code: str) -> str:
    return normal_code(code) or code
