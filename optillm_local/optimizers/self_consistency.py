"""Self-consistency: sample several reasoning paths, return the answer most of them reach."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.voting import RULES, Poll, Stopping, probability, uniform


@frozen_options
class SelfConsistency(Optimizer):
    """Sample n reasoning paths in one batch and vote on the answers they state.

    Answers that mean the same count as one (`optillm_local.answers`); a tie goes to the one reached first. Once no
    outstanding path can change the majority, the rest is aborted mid-token. n=5 at temperature 1 is
    codelion's optillm, which samples one path after the other and compares whole texts.
    """

    name: ClassVar[str] = "self_consistency"
    description: ClassVar[str] = "n reasoning paths in one batch; the answer most of them reach; ends early"
    source: ClassVar[str] = "Wang et al., Self-Consistency Improves Chain of Thought Reasoning, 2022"

    n: int = Field(default=5, ge=1, le=4096, description="reasoning paths to sample")
    weights: Literal["uniform", "probability"] = Field(
        default="uniform", description="one vote each, or the geometric mean of the path's token probabilities"
    )
    stop: Stopping = Field(
        default="decided",
        description="abort the rest once the vote cannot change, once the majority is 95 % certain, or never",
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        if self.weights == "probability":
            prompt = prompt.with_logprobs()
        poll = Poll(self.n, weigh=probability if self.weights == "probability" else uniform, rule=RULES[self.stop])
        with span("generate"):
            async with client.generate(prompt.fan(self.n), report_every=AT_THE_END) as group:
                await poll.hear(group)
        return await poll.elect(prompt.sampling.temperature)
