"""Scores from showing candidates together and asking which one is the best."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from optillm_local.answers import equivalence_classes, extract_answer
from optillm_local.confidence.scorer import Scorer, behind_reviews, if_it_fits
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.prompts import render

LONGEST = 9
"""Most candidates in one lineup: up to it a number is a single token, and none begins another."""


@frozen_options
class Lineup(Scorer):
    """P(the best candidate is one with this answer), read when numbered candidates are shown together.

    As many lineups as there are candidates are read at once, each with another one first: everybody stands in
    every place once, and what a place is worth cancels out. Where there are more than `shown`, each lineup shows a
    stretch of the ring. Candidates that state the same answer share the model's choice, so what they have is
    added up: else three right ones could lose to one wrong one. An empty candidate is not shown, and has NaN.

    With `reviews`, comparisons are written before the number is read. Source: Toshniwal et al., "GenSelect", 2025.
    """

    name: ClassVar[str] = "lineup"
    description: ClassVar[str] = "P(best)"
    comparative: ClassVar[bool] = True

    shown: int = Field(default=8, ge=2, le=LONGEST, description="most candidates to show together")
    reviews: int = Field(
        default=0, ge=0, le=64, description="comparisons to write before the choice is read; 0 reads at once"
    )
    review_tokens: int = Field(default=2048, ge=1, description="most tokens of a comparison")
    temperature: float = Field(default=0.3, ge=0, le=2, description="of the comparisons")

    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        texts = {i: text for i, one in enumerate(candidates) if (text := (one.answer or one.text).strip())}
        scores = dict(zip(texts, await self._among(list(texts.values()), question, client), strict=True))
        return [scores.get(i, math.nan) for i in range(len(candidates))]

    async def _among(self, texts: Sequence[str], question: Prompt, client: ModelClient) -> list[float]:
        n, shown = len(texts), min(self.shown, len(texts))
        if n < 2:
            return [1.0] * n
        stated = await equivalence_classes([extract_answer(text) for text in texts])
        classes = [-i if kind is None else kind for i, kind in enumerate(stated, start=1)]

        async def lineup(first: int) -> Mapping[int, float]:
            places = [(first + place) % n for place in range(shown)]
            text = render("scorers/lineup", candidates=[texts[i] for i in places], write=bool(self.reviews))
            asked = question.instructed(text)
            chosen = await if_it_fits(self._chosen(asked, first, shown, client), [math.nan] * shown)
            totals: dict[int, float] = defaultdict(float)
            for i, probability in zip(places, chosen, strict=True):
                totals[classes[i]] += probability
            return {i: totals[classes[i]] for i in places}

        lineups = await each(lineup, range(n))
        known = [[one[i] for one in lineups if i in one and not math.isnan(one[i])] for i in range(n)]
        return [fmean(one) if one else math.nan for one in known]

    async def _chosen(self, asked: Prompt, first: int, shown: int, client: ModelClient) -> list[float]:
        """P(best) by place in a lineup; the mean over the comparisons."""
        if not self.reviews:
            return await _read(asked, shown, client)
        written = asked.step(
            "comparison", first, at_most=self.review_tokens, temperature=self.temperature, stop=()
        )

        ask = Message("user", render("scorers/after_lineup"))
        reads = await behind_reviews(
            written, self.reviews, client, lambda compared: _read(compared.then(ask), shown, client)
        )
        return [fmean(place) for place in zip(*reads, strict=True)]


async def _read(asked: Prompt, shown: int, client: ModelClient) -> list[float]:
    numbers = [str(place) for place in range(1, shown + 1)]
    return list((await client.choose(asked.but(log_tag="lineup"), numbers)).probabilities.values())
