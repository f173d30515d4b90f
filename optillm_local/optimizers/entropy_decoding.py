"""Entropy-based decoding: go on where the model is sure, and step in where it is not."""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence.likelihood import TOP_K
from optillm_local.confidence.measures import entropy, varentropy
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, OutputTextDelta
from optillm_local.core.generation import NOW_AND_THEN
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import selected
from optillm_local.optimizers.draft import AT_AN_END, Draft
from optillm_local.optimizers.pieces import beginning


class State(StrEnum):
    """What entropy and varentropy say of a token: both low, one high, both high."""

    FLOWING = "flowing"
    TREADING = "treading"
    EXPLORING = "exploring"
    RESAMPLING = "resampling"


@frozen_options
class EntropyDecoding(Optimizer):
    """Watch entropy and varentropy of each token while one answer is decoded, and step in where they are high.

    Where the model is evenly unsure (high entropy alone), a pause is put in and it goes on. Where its distribution
    is uneven (high varentropy), several ways on are drawn side by side from just before that token, warmer than
    the answer, and hot if entropy is high too; the likeliest goes on. Each time decoding resumes from token ids in
    the prefix cache, and what lies behind the token is discarded.

    entropix looks at every token within the sampler, and codelion's optillm in a loop around it. Here the engine
    decodes undisturbed and reports every few tokens; the first token and one after each step are let through, and
    after a number of steps the answer is written to its end as it comes. Entropy is that of the 20 likeliest
    tokens, all others counting as one, so it never exceeds 3.04 nats: one boundary each divides high from low,
    their 3 bits and 5 bits squared. Attention, which adapts their temperatures further, is out of reach.
    """

    name: ClassVar[str] = "entropy_decoding"
    description: ClassVar[str] = "one answer, with pauses and branches where token entropy or varentropy is high"
    source: ClassVar[str] = "entropix (xjdr, 2024); optillm entropy_decoding"

    temperature: float = Field(default=0.666, ge=0, le=2, description="of the answer")
    top_p: float = Field(default=0.9, gt=0, le=1, description="nucleus to draw from")
    top_k: int = Field(default=27, ge=0, description="most probable tokens to draw from; 0 draws from all")
    min_p: float = Field(default=0.03, ge=0, le=1, description="least share of the likeliest token's probability")
    high_entropy: float = Field(default=2.08, ge=0, description="nats above which entropy is high")
    high_varentropy: float = Field(default=2.4, ge=0, description="nats squared above which varentropy is high")
    steps: int = Field(default=8, ge=0, le=256, description="how often to step in at most")
    branches: int = Field(default=3, ge=2, le=64, description="ways on to draw where they differ")
    lookahead: int = Field(default=16, ge=1, description="tokens after which the likeliest of them is chosen")
    pause: str = Field(default="...", min_length=1, description="put in where the model is evenly unsure")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        how = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "min_p")}
        draft = Draft.of(Prompt.of(query, **how).measured(TOP_K), client)
        taken: Counter[str] = Counter()
        with span("decode"):
            for step in range(self.steps):
                draft, state = await self._flow(draft, step)
                if state is State.FLOWING:
                    break
                taken[str(state)] += 1
                branched = state is not State.TREADING
                draft = await self._branch(draft, step, state) if branched else self._paused(draft)
                if draft.is_over:
                    break
            if not draft.is_over:
                draft = await draft.written_on("decode", self.steps)
        return selected(draft.candidate("decode"), "the only completion", steps=dict(taken))

    async def _flow(self, draft: Draft, step: int) -> tuple[Draft, State]:
        """Decode up to the first token, but one, that the model is not sure of, or to the end."""
        seen, at, state = 0, 0, State.FLOWING
        try:
            async with draft.client.generate([draft.asked("decode", step)], report_every=NOW_AND_THEN) as group:
                async for _, event in group:
                    if isinstance(event, Completed):
                        piece = event.completion
                    elif not at:
                        unsure = [(seen + n, one) for n, one in enumerate(self._states(event)) if seen + n]
                        at, state = next(((n, one) for n, one in unsure if one is not State.FLOWING), (0, state))
                        seen += len(event.token_ids)
                        if at:
                            group.stop(because=f"the model is {state} at token {at}")
        except AT_AN_END as why:
            return draft.cut_off(why), state
        return draft.then(beginning(piece, at, draft.client) if at else piece), state

    def _states(self, sampled: OutputTextDelta) -> list[State]:
        return [self._state(h, v) for h, v in zip(entropy(sampled), varentropy(sampled), strict=True)]

    def _state(self, entropy: float, varentropy: float) -> State:
        if varentropy > self.high_varentropy:
            return State.RESAMPLING if entropy > self.high_entropy else State.EXPLORING
        return State.TREADING if entropy > self.high_entropy else State.FLOWING

    def _paused(self, draft: Draft) -> Draft:
        paused = draft.plus(self.pause)
        return draft if paused.room < 1 else paused

    async def _branch(self, draft: Draft, step: int, state: State) -> Draft:
        """Several ways on; the likeliest. Temperatures are optillm's, as far as attention has no part in them."""
        how = {"temperature": min(1.5, 1.2 * self.temperature), "top_p": self.top_p}
        if state is State.RESAMPLING:
            how = {"temperature": 2.0, "top_p": max(0.5, self.top_p - 0.2)}
        ways = await draft.ways_on(self.branches, "branch", step, at_most=self.lookahead, **how)
        return max(ways, key=_likelihood)


def _likelihood(draft: Draft) -> tuple[bool, float]:
    """Of the last piece; one that was cut off comes last."""
    mean = draft.pieces[-1].mean_logprob
    return not draft.is_aborted, -math.inf if math.isnan(mean) else mean
