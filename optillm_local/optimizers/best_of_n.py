"""Best of n: sample n answers side by side, return the one that scores best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import MEANINGS, PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.events import AnswerSelected
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, revise, span


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
    scorer: ScorerOption = Field(default=PCorrect(), description=f"what the best is best by. {MEANINGS}")
    enough: float | None = Field(
        default=None, description="a score at which the answers that are still being written are aborted"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        prompts = self.prompts(prompt)
        field = _Field(self, prompt, [one.sampling.temperature for one in prompts], client)
        with span("generate"):
            async with client.generate(prompts, report_every=AT_THE_END) as group:
                await field.fill(group)
        if self.scorer.comparative:
            with span("compare"):
                await field.compare()
        return field.best()

    def prompts(self, prompt: Prompt) -> list[Prompt]:
        """What is sampled: one prompt for each candidate."""
        return prompt.fan(self.n)

    def is_new(self, answer: Completion, earlier: Sequence[Completion]) -> bool:
        """Whether an answer is worth judging beside those that were finished before it."""
        return True


class _Field:
    """The candidates of one run."""

    def __init__(
        self, options: BestOfN, prompt: Prompt, temperatures: Sequence[float], client: ModelClient
    ) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self._temperatures = temperatures
        self._candidates: dict[int, Solution] = {}

    async def fill(self, group: Generation) -> None:
        """Keep each candidate when it is finished; score it at once if it is scored by itself."""
        async with task_group() as judges:
            async for index, event in group:
                if not isinstance(event, Completed):
                    continue
                earlier = [one.completion for one in self._candidates.values() if one.completion]
                if not self._options.is_new(event.completion, earlier):
                    continue
                self._candidates[index] = self._candidate(index, event.completion)
                if self._options.scorer.comparative:
                    keep(self._candidates[index])
                else:
                    judges.start_soon(self._judge, index, event.completion, group)

    async def _judge(self, index: int, completion: Completion, group: Generation) -> None:
        [score] = await self._scores([completion])
        self._candidates[index] = keep(self._candidates[index].but(verification_score=score))
        if self._options.enough is not None and score >= self._options.enough:
            group.stop(because=f"{self._options.scorer.description} {score:.3f} is enough")

    async def compare(self) -> None:
        """Score the candidates against one another; those that were cut off stay out of it."""
        whole = [index for index in sorted(self._candidates) if self._is_whole(index)]
        answers = [self._candidates[index].completion for index in whole]
        scores = await self._scores([answer for answer in answers if answer])
        for index, score in zip(whole, scores, strict=True):
            self._candidates[index] = revise(self._candidates[index].but(verification_score=score))

    def _is_whole(self, index: int) -> bool:
        return bool(self._candidates[index].metadata["finish_reason"] != "abort")

    async def _scores(self, completions: Sequence[Completion]) -> list[float]:
        try:
            found = await self._options.scorer.score(self._prompt, completions, self._client)
        except BudgetExceeded:  # an unjudged candidate is still a candidate
            return [math.nan] * len(completions)
        return [math.nan if one.finish_reason == "abort" else s for one, s in zip(completions, found, strict=True)]

    def _candidate(self, index: int, completion: Completion) -> Solution:
        return Solution.of(
            completion,
            agent_id=f"agent-{index}",
            phase="generate",
            temperature=self._temperatures[index],
            metadata={"mean_logprob": completion.mean_logprob, "finish_reason": completion.finish_reason},
        )

    def best(self) -> Solution:
        """The candidate with the highest score; of equals a whole one, then the likeliest, then the first."""
        candidates = [self._candidates[index] for index in sorted(self._candidates)]
        best = max(candidates, key=_rank)
        by = self._options.scorer.description
        selection = f"highest {by} of {len(candidates)}: {best.verification_score:.3f}"
        if math.isnan(best.verification_score):
            selection = f"the likeliest of {len(candidates)}, none of them judged"
        here = current_span().id
        emit(AnswerSelected(span_id=here, solution_id=best.id, answer=best.answer, selection=selection))
        return best.but(metadata={"selection": selection})


def _rank(candidate: Solution) -> tuple[float, bool, float]:
    score, likely = candidate.verification_score, candidate.metadata["mean_logprob"]
    whole = candidate.metadata["finish_reason"] != "abort"
    return -math.inf if math.isnan(score) else score, whole, -math.inf if math.isnan(likely) else likely
