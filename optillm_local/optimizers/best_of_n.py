"""Best of n: sample n answers side by side, return the one that judges best."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.events import AnswerSelected
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, span
from optillm_local.optimizers._options import optimizer_options
from optillm_local.prompts import render

TOP_K = 20
"""Alternatives per token that confidence is computed from (Fu et al. 2025 use vLLM's top 20)."""


@optimizer_options
class BestOfN(Optimizer):
    """Sample n answers in one batch and return the best.

    A verdict is read and not generated: the candidate's conversation goes on with the question whether it is
    correct, and P(Yes) is taken from one prefill that reuses the candidate's own cached tokens. It starts the
    moment the candidate is finished, while the others still decode. codelion's optillm asks for ratings in
    prose instead, one after the other, with the same n and temperature 1.
    """

    name: ClassVar[str] = "best_of_n"
    description: ClassVar[str] = "n answers in one batch; the best by verifier probability, logprob or confidence"

    n: int = Field(3, ge=1, le=4096, description="answers to sample")
    select: Literal["verifier", "logprob", "confidence"] = Field(
        "verifier",
        description="P(Yes, it is correct), mean log-probability per token, or mean top-20 token confidence",
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        if self.select == "confidence":
            prompt = prompt.but(logprobs=TOP_K)
        elif self.select == "logprob" and prompt.sampling.logprobs is None:
            prompt = prompt.but(logprobs=0)
        candidates: dict[int, Solution] = {}
        with span("generate"):
            async with (
                task_group() as judges,
                client.generate(prompt.fan(self.n), report_every=AT_THE_END) as group,
            ):
                async for index, event in group:
                    if isinstance(event, Completed):
                        judges.start_soon(self._judge, index, prompt, event.completion, client, candidates)
        return self._best([candidates[index] for index in sorted(candidates)])

    async def _judge(
        self,
        index: int,
        prompt: Prompt,
        completion: Completion,
        client: ModelClient,
        candidates: dict[int, Solution],
    ) -> None:
        candidate = Solution.of(
            completion,
            agent_id=f"agent-{index}",
            phase="generate",
            temperature=prompt.sampling.temperature,
            metadata={"mean_logprob": completion.mean_logprob, "finish_reason": completion.finish_reason},
        )
        try:
            score = await self._score(prompt, completion, client)
        except BudgetExceeded:  # an unjudged candidate is still a candidate
            score = math.nan
        candidates[index] = keep(candidate.but(verification_score=score))

    async def _score(self, prompt: Prompt, completion: Completion, client: ModelClient) -> float:
        if completion.finish_reason == "abort":
            return math.nan
        if self.select == "logprob":
            return completion.mean_logprob
        if self.select == "confidence":
            return completion.confidence
        question = Message("user", render("best_of_n/verdict"))
        asked = prompt.then(completion.message(), question).but(log_tag="verdict")
        return (await client.choose(asked, ["Yes", "No"]))["Yes"]

    def _best(self, candidates: list[Solution]) -> Solution:
        def rank(candidate: Solution) -> tuple[float, bool, float]:
            score, likely = candidate.verification_score, candidate.metadata["mean_logprob"]
            whole = candidate.metadata["finish_reason"] != "abort"
            return -math.inf if math.isnan(score) else score, whole, -math.inf if math.isnan(likely) else likely

        best = max(candidates, key=rank)
        by = {"verifier": "P(correct)", "logprob": "mean log-probability", "confidence": "confidence"}[self.select]
        selection = f"highest {by} of {len(candidates)}: {best.verification_score:.3f}"
        if math.isnan(best.verification_score):
            selection = f"the likeliest of {len(candidates)}, none of them judged"
        emit(
            AnswerSelected(span_id=current_span().id, solution_id=best.id, answer=best.answer, selection=selection)
        )
        return best.but(metadata={"selection": selection})
