"""Best of n: sample n answers side by side, return the one that scores best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import candidate
from optillm_local.optimizers.ranking import Ranking


@frozen_options
class BestOfN(Optimizer):
    """Sample n answers in one batch and return the best.

    By default a verdict is read and not generated: the candidate's conversation goes on with the question whether
    it is correct, and P(Yes) is taken from one prefill that reuses the candidate's own cached tokens. It starts
    the moment the candidate is finished, while the others still decode. codelion's optillm asks for ratings in
    prose instead, one after the other, with the same n and temperature 1.
    """

    name: ClassVar[str] = "best_of_n"
    description: ClassVar[str] = (
        "n answers in one batch; the best by a verdict, a comparison or its log-probabilities"
    )
    source: ClassVar[str] = "Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021; optillm bon"

    n: int = Field(default=3, ge=1, le=4096, description="answers to sample")
    scorer: ScorerOption = Field(default=PCorrect(), description="what the best is best by; a scorer")
    enough: float | None = Field(
        default=None, description="a score at which the answers that are still being written are aborted"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.enough is not None and self.scorer.comparative:
            remedy = f"{self.scorer.name} compares answers, so all must be there; leave one of the two out"
            raise InvalidConfiguration("enough", self.enough, remedy)
        return self

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        prompts, earlier = self.prompts(prompt), list[Completion]()
        ranking = Ranking(self.scorer, prompt, client, enough=self.enough)
        with span("generate"):
            async with client.generate(prompts, report_every=AT_THE_END) as group, task_group() as judges:
                async for index, event in group:
                    if isinstance(event, Completed) and self.is_new(event.completion, earlier):
                        earlier.append(event.completion)
                        answer = candidate(event.completion, prompts[index], "generate", index)
                        judges.start_soon(ranking.enter, index, answer, group)
        return await ranking.best()

    def prompts(self, prompt: Prompt) -> list[Prompt]:
        """What is sampled: one prompt for each candidate."""
        return prompt.fan(self.n)

    def is_new(self, answer: Completion, earlier: Sequence[Completion]) -> bool:
        """Whether an answer is worth judging beside those that were finished before it."""
        return True
