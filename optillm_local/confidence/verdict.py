"""Verdicts read from log-probabilities: the model says what it thinks of an answer in its next token."""

from __future__ import annotations

import math
import string
from abc import abstractmethod
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, ClassVar

from pydantic import Field

from optillm_local.confidence.scorer import Pointwise, behind_reviews
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.prompts import render

LABELS = CORRECT, INCORRECT = "Yes", "No"
"""What a verdict is read from, answers to "is it correct?" (Zhang et al., "Generative Verifiers", 2024, eq. 5).

One token each for today's tokenizers. The words CORRECT and INCORRECT are two and three, with spellings of
their own: reading them takes up to eight requests instead of one.
"""

LEVELS = string.ascii_uppercase[:20]
"""Twenty levels from A (worst) to T, each a single token (LLM-as-a-Verifier, 2026)."""


@frozen_options
class Verdict(Pointwise):
    """Reads a verdict on each candidate, after written reviews or at once; the mean over the reviews."""

    reviews: int = Field(
        default=0, ge=0, le=64, description="reviews to write before a verdict is read; 0 reads at once"
    )
    review_tokens: int = Field(default=256, ge=1, description="most tokens of a review")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the reviews")

    async def judge(self, question: Prompt, candidate: Completion, client: ModelClient) -> float:
        if candidate.finish_reason == "abort":
            return math.nan
        answered = question.then(candidate.message())
        if not self.reviews:
            return await self.read(answered, client)
        asked = answered.then(Message("user", render("scorers/review"))).step(
            "review", candidate.seed, at_most=self.review_tokens, temperature=self.temperature, stop=()
        )
        verdicts = await behind_reviews(
            asked, self.reviews, client, lambda reviewed: self.read(reviewed, client, reviewed=True)
        )
        return fmean(map(self.vote, verdicts))

    def vote(self, verdict: float) -> float:
        """What one review counts for."""
        return verdict

    @abstractmethod
    async def read(self, answered: Prompt, client: ModelClient, *, reviewed: bool = False) -> float:
        """The verdict, 0 to 1, on the answer that a conversation ends with, or that was reviewed in it."""


@frozen_options
class PCorrect(Verdict):
    """P(the answer is correct): P(Yes) to that question, from one prefill behind the candidate's cached tokens.

    With `reviews` it is read after each of them and averaged; with `votes` each review counts as 1 or 0 (Zhang et
    al., "Generative Verifiers: Reward Modeling as Next-Token Prediction", 2024, eq. 5 and 6).
    """

    name: ClassVar[str] = "verifier"
    description: ClassVar[str] = "P(correct)"

    votes: bool = Field(default=False, description="count a review as 1 or 0, whichever its verdict is closer to")
    template: str = Field(
        default="scorers/correct", description="what is asked about an answer that is not reviewed"
    )

    def vote(self, verdict: float) -> float:
        return float(verdict > 0.5) if self.votes else verdict

    async def read(self, answered: Prompt, client: ModelClient, *, reviewed: bool = False) -> float:
        asked = Message("user", render("scorers/after_review" if reviewed else self.template))
        return (await client.choose(answered.then(asked).but(log_tag="verdict"), LABELS))[CORRECT]


@frozen_options
class Levels(Verdict):
    """The expected grade on a scale of twenty letters, 0 to 1, averaged over the criteria.

    Finer than Yes or No: the probabilities of all grades enter, so that candidates seldom tie. Source:
    LLM-as-a-Verifier, 2026: expectation over score tokens, criteria apart, repeated (`reviews`) and averaged.
    """

    name: ClassVar[str] = "levels"
    description: ClassVar[str] = "expected grade"

    criteria: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("the final answer is correct", "every step follows", "it answers what is asked"),
        description="what is graded, each apart",
    )

    async def read(self, answered: Prompt, client: ModelClient, *, reviewed: bool = False) -> float:
        return fmean(await each(lambda one: self._grade(one, answered, client), self.criteria))

    async def _grade(self, criterion: str, answered: Prompt, client: ModelClient) -> float:
        text = render("scorers/level", criterion=criterion, lowest=LEVELS[0], highest=LEVELS[-1])
        asked = answered.then(Message("user", text)).but(log_tag=f"grade: {criterion}")
        return expectation(list((await client.choose(asked, LEVELS)).probabilities.values()))


def expectation(probabilities: Sequence[float]) -> float:
    """The mean of evenly spaced levels 0 to 1 under their probabilities, lowest first."""
    top = len(probabilities) - 1
    return math.fsum(p * level / top for level, p in enumerate(probabilities))
