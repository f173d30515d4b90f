"""Diverse sampling: the same question from cool to hot, and the best of what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from optillm_local.answers import extract_answer, normalize
from optillm_local.core.completion import Completion
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.optimizers.best_of_n import BestOfN
from optillm_local.search import word_overlap
from optillm_local.search.diversity import SAME


@frozen_options
class DiverseSampling(BestOfN):
    """Sample n answers at temperatures that are evenly spaced from `coolest` to `hottest`, and return the best.

    One that repeats an earlier one is neither judged nor kept: it states the same answer in nearly the same
    words. 5 answers from 0.3 to 1.5 are the seed's (optillm-rs), which samples them in turn and returns the first.
    """

    name: ClassVar[str] = "diverse_sampling"
    description: ClassVar[str] = "answers at rising temperatures in one batch, repetitions left out; the best"
    source: ClassVar[str] = "optillm-rs diverse_sampling"

    n: int = Field(default=5, ge=1, le=4096, description="answers to sample")
    coolest: float = Field(default=0.3, ge=0, le=2, description="temperature of the first")
    hottest: float = Field(default=1.5, ge=0, le=2, description="temperature of the last")
    same: float = Field(
        default=SAME, ge=0, le=1, description="share of common words above which one answer repeats another"
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.coolest > self.hottest:
            raise InvalidConfiguration("coolest", self.coolest, f"must be at most hottest={self.hottest:g}")
        return self

    def prompts(self, prompt: Prompt) -> list[Prompt]:
        step = (self.hottest - self.coolest) / max(1, self.n - 1)
        return [
            one.but(temperature=round(self.coolest + step * place, 6))
            for place, one in enumerate(prompt.fan(self.n))
        ]

    def is_new(self, answer: Completion, earlier: Sequence[Completion]) -> bool:
        return not any(
            word_overlap(answer.text, one.text) > self.same and _stated(answer) == _stated(one) for one in earlier
        )


def _stated(completion: Completion) -> str:
    return normalize(extract_answer(completion.text) or "")
