"""Scores from comparing candidates with one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence.scorer import Scorer, if_it_fits
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.prompts import render
from optillm_local.search import pairs, standings


@frozen_options
class Tournament(Scorer):
    """The mean probability of beating the others, or some of them.

    Each comparison is read twice, with the places swapped, because models favour a place. All are read at once:
    n (n - 1) / 2 comparisons, or about n k with `pivots` k (LLM-as-a-Verifier, 2026, whose pivot tournament finds
    its pivots by a round of comparisons; these are evenly spread).
    """

    name: ClassVar[str] = "pairwise"
    description: ClassVar[str] = "share of comparisons won"
    comparative: ClassVar[bool] = True

    pivots: int | None = Field(
        default=None, ge=1, description="candidates that all others are compared with; none: all with all"
    )

    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        n = len(candidates)
        if n < 2:
            return [1.0] * n

        async def compare(pair: tuple[int, int]) -> float:
            first, second = (candidates[i] for i in pair)
            there, back = await each(
                lambda order: if_it_fits(_prefers_first(question, *order, client), math.nan),
                [(first, second), (second, first)],
            )
            return fmean((there, 1 - back))

        drawn = pairs(n, self.pivots or n - 1)
        return standings(n, dict(zip(drawn, await each(compare, drawn), strict=True)))


async def _prefers_first(question: Prompt, first: Completion, second: Completion, client: ModelClient) -> float:
    text = render("scorers/compare", first=first.answer or first.text, second=second.answer or second.text)
    return (await client.choose(question.instructed(text).but(log_tag="compare"), ["A", "B"]))["A"]
