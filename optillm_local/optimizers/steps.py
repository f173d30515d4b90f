"""Answers that are written step by step, each step scored before the next: what searches over steps share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import MEANINGS, PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import BudgetExceeded, NoSolutions, RequestRejected
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.draft import Draft


@dataclass(frozen=True, slots=True)
class Trace:
    """An answer so far.

    Attributes:
        draft: its steps.
        score: what the scorer makes of it; NaN if it cannot tell.
        is_finished: whether no step can follow.
        solution: its record, once it is finished.
    """

    draft: Draft
    score: float = math.nan
    is_finished: bool = False
    solution: Solution | None = None

    @property
    def text(self) -> str:
        """What is written so far."""
        return self.draft.completion.text


@frozen_options
class StepSearch(Optimizer):
    """An optimizer that lets answers grow by steps, many at a time, and tells good beginnings from bad ones.

    A step is written from the token ids of those before it and ends at a separator, or after so many tokens.
    """

    phase: ClassVar[str] = "step"

    scorer: ScorerOption = Field(
        default=PCorrect(template="scorers/step"), description=f"scores the answers so far. {MEANINGS}"
    )
    separator: str = Field(default="\n\n", min_length=1, description="text that ends a step")
    step_tokens: int | None = Field(
        default=None, ge=1, description="tokens that end a step too; none: only the separator does"
    )
    max_steps: int = Field(default=40, ge=1, description="most steps of an answer (Snell et al. 2024)")
    temperature: float = Field(default=0.8, ge=0, le=2, description="of the steps")

    def begin(self, query: str | Prompt, client: ModelClient) -> Trace:
        """An answer without any step."""
        return Trace(Draft.of(self.scorer.sampled(Prompt.of(query, temperature=self.temperature)), client))

    async def grow(self, traces: Sequence[Trace], level: int) -> list[Trace]:
        """The answers with one more step each, all written at once, and scored; finished ones stay as they are.

        What a budget or the model's context cuts off is finished. Scores that are unknown for that are NaN.
        """

        async def longer(place: int) -> Trace:
            trace = await self._written_on(traces[place], level, place)
            if self.scorer.comparative or traces[place].is_finished:
                return trace
            return (await self._scored([trace]))[0]

        grown = await each(longer, range(len(traces)))
        if self.scorer.comparative:
            grown = await self._scored(grown)
        return [self._recorded(trace, place) for place, trace in enumerate(grown)]

    def best(self, traces: Sequence[Trace]) -> Solution:
        """The answer with the highest score, a finished one if there is any; of equals the first.

        Raises:
            NoSolutions: no answer says anything.
        """
        pool = [trace for trace in traces if trace.is_finished] or list(traces)
        best = max((trace for trace in pool if trace.text.strip()), key=_rank, default=None)
        if best is None:
            raise NoSolutions("the model wrote nothing")
        selection = f"highest {self.scorer.description} of {len(pool)} answers: {best.score:.3f}"
        return selected(best.solution or self._solution(best, 0), selection)

    async def _written_on(self, trace: Trace, level: int, place: int) -> Trace:
        if trace.is_finished:
            return trace
        draft = trace.draft
        stop = (*draft.prompt.sampling.stop, self.separator)
        asked = draft.asked("step", level, place, at_most=self.step_tokens, stop=stop)
        try:
            [piece] = await draft.client.sample(asked)
        except (BudgetExceeded, RequestRejected):
            if not draft.pieces:
                raise
            piece = Completion("", (), "abort", TokenUsage())
        draft = draft.then(piece)
        if self.separator in draft.client.decode(piece.token_ids):  # no text has it, because it stops there
            draft = draft.plus(self.separator)
            goes_on = piece.finish_reason == "stop"
        else:
            goes_on = piece.finish_reason == "length" and len(piece.token_ids) == asked.sampling.max_tokens
        return Trace(draft, is_finished=not goes_on or draft.room < 1)

    async def _scored(self, traces: Sequence[Trace]) -> list[Trace]:
        draft = traces[0].draft
        answers = [trace.draft.completion for trace in traces]
        try:
            scores = await self.scorer.score(draft.prompt, answers, draft.client)
        except (BudgetExceeded, RequestRejected):
            scores = [math.nan] * len(traces)
        return [replace(trace, score=score) for trace, score in zip(traces, scores, strict=True)]

    def _recorded(self, trace: Trace, place: int) -> Trace:
        if not trace.is_finished:
            return trace
        if trace.solution is None:
            return replace(trace, solution=self._solution(trace, place))
        if trace.score == trace.solution.verification_score:
            return trace
        return replace(trace, solution=revise(trace.solution.but(verification_score=trace.score)))

    def _solution(self, trace: Trace, place: int) -> Solution:
        whole = trace.draft.completion
        return candidate(whole, trace.draft.prompt, self.phase, place, verification_score=trace.score)


def _rank(trace: Trace) -> float:
    return -math.inf if math.isnan(trace.score) else trace.score
