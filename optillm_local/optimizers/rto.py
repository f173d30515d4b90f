"""Round-trip optimization: write code, describe it, write it again from the description, and reconcile the two."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.answers.code import normal_code
from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import asking, candidate, first_whole, ids, said, selected
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
        first = await _written(asked, client)
        first_whole([first])  # raises if there is nothing to describe
        description = await self._description(asked, first, client)
        if not description:
            return selected(first, "the first code: it was not described")
        second = await _written(asking(prompt, description).step("recode"), client)
        if _form(first) == _form(second):
            return selected(first, "both codes are the same")
        if not second.answer:
            return selected(first, "the first code: none was written from its description")
        codes = render("rto/reconcile", first=first.answer, second=second.answer)
        final = await _written(prompt.instructed(codes).step("reconcile"), client, first, second)
        best = first_whole([final, first])
        return selected(
            best, "two codes reconciled" if best is final else "the first code: no final one was written"
        )

    async def _description(self, asked: Prompt, first: Solution, client: ModelClient) -> str:
        assert first.completion  # noqa: S101 - it was just written
        told = asked.then(first.completion.message(), Message("user", render("rto/describe")))
        with span("describe"):
            [completion] = await client.sample(told.step("describe", at_most=DESCRIPTION_TOKENS))
        return said(completion)


async def _written(asked: Prompt, client: ModelClient, *parents: Solution) -> Solution:
    name = asked.log_tag or "code"
    with span(name):
        [completion] = await client.sample(asked)
    return candidate(completion, asked, name, answer=code_in(said(completion)), parents=ids(parents))


def _form(code: Solution) -> str:
    return normal_code(code.answer) or code.answer
