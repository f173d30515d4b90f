"""A router: one answer, and what the model thinks of it, decide how much more effort the question gets."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from optillm_local import registry
from optillm_local.confidence import PCorrect, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.errors import BudgetExceeded, NoSolutions
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import candidate, said, selected
from optillm_local.optimizers.voting import Poll, agreement


def _known(name: str) -> str:
    """The name of an optimizer, or of a combination, that can be made."""
    registry.create(name)
    return name


@frozen_options
class Auto(Optimizer):
    """Three levels of effort, each entered only if the one before it has not settled the question.

    1. Probe: one answer, and a score of it that is read. It is the answer if the score is at least `sure`.
    2. Vote: n - 1 more answers join it in one batch, on its cached prompt, as in self-consistency. The majority is
       the answer if `agreed` of all n state it; once it is clear that they do or cannot, the rest is aborted.
    3. `hard`: another optimizer starts afresh.

    codelion's optillm has a router too: a ModernBERT of 400 million parameters that was trained to name one of
    thirteen approaches. It sees the question alone and costs a second model; this one asks the model that
    is to answer, and fits every model. The thresholds are ours: 0.6 of five answers is their majority.
    """

    name: ClassVar[str] = "auto"
    description: ClassVar[str] = "effort as needed: one answer, then a vote, then another optimizer"
    source: ClassVar[str] = "in the place of optillm's router"

    scorer: PointwiseOption = Field(
        default=PCorrect(), description="how sure the first answer is; one that scores each by itself"
    )
    sure: float = Field(default=0.9, description="a score at which the first answer is returned")
    n: int = Field(default=5, ge=2, le=4096, description="answers that vote, the first one included")
    agreed: float = Field(default=0.6, ge=0, le=1, description="share of the answers that have to agree")
    hard: Annotated[str, AfterValidator(_known)] = Field(
        default="mars", description="the optimizer for what the vote leaves open"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        first, *others = prompt.fan(self.n)
        with span("probe"):
            [probe] = await client.sample(first)
            score = await self._score(prompt, probe, client)
            if score >= self.sure:
                answer = candidate(probe, first, "probe", verification_score=score)
                return selected(answer, f"the first answer is sure: {self.scorer.description} {score:.3f}")
        with span("vote"):
            poll = await self._vote(probe, others, client)
            elected = await poll.elect(prompt.sampling.temperature)
        if poll.agreeing >= self.agreed:
            return elected
        with span("hard"):
            try:
                return await registry.create(self.hard).optimize(prompt.step("hard", self.hard), client)
            except NoSolutions:
                return elected

    async def _score(self, prompt: Prompt, probe: Completion, client: ModelClient) -> float:
        """How sure the first answer is; NaN if there is none, or no budget left to ask."""
        if not said(probe):
            return math.nan
        with suppress(BudgetExceeded):
            return (await self.scorer.score(prompt, [probe], client))[0]
        return math.nan

    async def _vote(self, probe: Completion, others: list[Prompt], client: ModelClient) -> Poll:
        """The first answer and the others, as far as the budget goes and they are needed."""
        poll = Poll(self.n, rule=agreement(self.agreed, self.n))
        await poll.add(0, probe)
        with suppress(BudgetExceeded):  # then those that are there vote
            async with client.generate(others, report_every=AT_THE_END) as group:
                await poll.hear(group, first=1)
        return poll
