"""Answers that are written step by step, each step scored before the next: what searches over steps share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pydantic import Field

from optillm_local.confidence import PCorrect, ScorerOption
from optillm_local.core.client import ModelClient
from optillm_local.core.concurrency import each
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.draft import AT_AN_END, Draft


@dataclass(frozen=True, slots=True)
class Trace:
    """An answer so far.

    Attributes:
        draft: its steps.
        place: where it stood among the others when it was last written on.
        score: what the scorer makes of it; NaN if it cannot tell.
        is_finished: whether no step can follow.
        solution: its record, once it is finished.
        log_weight: what it weighs among the others, where they are drawn by weight.
    """

    draft: Draft
    place: int = 0
    score: float = math.nan
    is_finished: bool = False
    solution: Solution | None = None
    log_weight: float = 0.0

    @property
    def text(self) -> str:
        """What is written so far."""
        return self.draft.completion.text


@frozen_options
class StepSearch(Optimizer):
    """An optimizer that lets answers grow by steps, many at a time, and tells good beginnings from bad ones.

    A step is written from the token ids of those before it and ends at a separator, or after so many tokens; the
    last that is allowed writes all the rest. The answer is the finished one with the highest score, whether or not
    a better beginning has taken its place meanwhile.
    """

    scorer: ScorerOption = Field(
        default=PCorrect(template="scorers/step"), description="scores the answers so far; a scorer"
    )
    separator: str = Field(default="\n\n", min_length=1, description="text that ends a step")
    step_tokens: int | None = Field(
        default=None, ge=1, description="tokens that end a step too; none: only the separator does"
    )
    max_steps: int = Field(
        default=40, ge=1, description="most steps of an answer, the last being all the rest (Snell et al. 2024)"
    )
    temperature: float = Field(default=0.8, ge=0, le=2, description="of the steps")

    @property
    @abstractmethod
    def width(self) -> int:
        """How many first steps are written."""

    @abstractmethod
    def select(self, traces: Sequence[Trace], random: Random) -> list[Trace]:
        """Those that go on, each as often as it is to be written on."""

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query, temperature=self.temperature))
        random = Random(prompt.step("select").sampling.seed)
        traces = [Trace(Draft.of(prompt, client))] * self.width
        finished: dict[str, Trace] = {}
        with span("search"):
            for level in range(self.max_steps):
                grown = await self._grow(traces, level)
                finished |= {trace.text: trace for trace in grown if trace.is_finished}
                traces = self.select(grown, random)
                if all(trace.is_finished for trace in traces):
                    break
        return self._best(finished.values())

    async def _grow(self, traces: Sequence[Trace], level: int) -> list[Trace]:
        """The answers with one more step each, all written at once, and scored; finished ones stay as they are."""

        async def longer(place: int) -> Trace:
            if traces[place].is_finished:
                return traces[place]
            trace = await self._step(replace(traces[place], place=place), level)
            return trace if self.scorer.comparative else (await self._scored([trace]))[0]

        grown = await each(longer, range(len(traces)))
        return await self._scored(grown) if self.scorer.comparative else grown

    async def _step(self, trace: Trace, level: int) -> Trace:
        """With one more step. What a budget or the model's context cuts off is finished."""
        draft, is_last = trace.draft, level + 1 == self.max_steps
        ends: dict[str, Any] = {"at_most": self.step_tokens, "stop": (*draft.prompt.sampling.stop, self.separator)}
        asked = draft.asked("step", level, trace.place, **({} if is_last else ends))
        try:
            [piece] = await draft.client.sample(asked)
        except AT_AN_END as why:
            return replace(trace, draft=draft.cut_off(why), is_finished=True)
        goes_on = piece.finish_reason == "length" and len(piece.token_ids) == asked.sampling.max_tokens
        if not is_last and self.separator in draft.client.decode(piece.token_ids):
            goes_on = piece.finish_reason == "stop"
            piece = replace(piece, text=piece.text + self.separator)  # a stop text is among the tokens alone
        draft = draft.then(piece)
        return replace(trace, draft=draft, is_finished=is_last or not goes_on or draft.room < 1)

    async def _scored(self, traces: Sequence[Trace]) -> list[Trace]:
        """With their scores, NaN where no room or budget is left to find out; finished ones are put on record."""
        draft = traces[0].draft
        try:
            scores = await self.scorer.score(draft.prompt, [one.draft.completion for one in traces], draft.client)
        except AT_AN_END:
            scores = [math.nan] * len(traces)
        return [_recorded(replace(one, score=score)) for one, score in zip(traces, scores, strict=True)]

    def _best(self, finished: Collection[Trace]) -> Solution:
        """The one with the highest score; of equals the first. One that was cut off comes last.

        Raises:
            NoSolutions: no answer says anything.
        """
        best = max((trace for trace in finished if trace.text.strip()), key=_rank, default=None)
        if best is None or best.solution is None:
            raise NoSolutions("the model wrote nothing")
        by = f"highest {self.scorer.description} of {len(finished)} answers"
        return selected(best.solution, f"{by}: {best.score:.3f}")


def _recorded(trace: Trace) -> Trace:
    """A finished answer is put on record, or its score there is revised."""
    if not trace.is_finished:
        return trace
    if trace.solution:
        return replace(trace, solution=revise(trace.solution.but(verification_score=trace.score)))
    whole, asked = trace.draft.completion, trace.draft.prompt
    solution = candidate(whole, asked, "search", trace.place, verification_score=trace.score)
    return replace(trace, solution=solution)


def _rank(trace: Trace) -> tuple[bool, float]:
    return not trace.draft.is_aborted, -math.inf if math.isnan(trace.score) else trace.score
