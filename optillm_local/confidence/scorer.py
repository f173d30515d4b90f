"""What a scorer is: how good are these answers to that question?"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, TypeVar

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import RequestRejected
from optillm_local.core.prompt import Prompt

T = TypeVar("T")


class Scorer(ABC):
    """A frozen, validated set of options that can be applied to any candidates.

    Attributes:
        name: how options call it; see `confidence.scorer`.
        description: what the number is, in a few words.
        comparative: candidates are scored against one another, so all must be there. Others are scored one by one,
            each the moment it exists.
        logprobs: alternatives per token that candidates must be measured over; 0 for the tokens' own
            log-probabilities alone, None for nothing.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    comparative: ClassVar[bool] = False
    logprobs: ClassVar[int | None] = None

    @property
    def is_measured(self) -> bool:
        """Whether scores are measured on a candidate's tokens, and so may be any number; others are 0 to 1."""
        return self.logprobs is not None

    @abstractmethod
    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        """One number per candidate, higher is better, NaN for what cannot be told.

        Args:
            question: the conversation that the candidates answer, or continue.
            candidates: what was sampled for it; their token ids are continued from, so that they are cache hits.

        Raises:
            ClientError, BudgetExceeded: as the client does; but where there is no room to ask, the score is NaN.
        """

    def sampled(self, prompt: Prompt) -> Prompt:
        """The prompt, sampled with what this scorer needs to know of each token."""
        if self.logprobs is None:
            return prompt
        return prompt.measured(self.logprobs) if self.logprobs else prompt.with_logprobs()


async def if_it_fits(read: Awaitable[T], otherwise: T) -> T:
    """What is read, or something else if the question does not fit into the model's context."""
    try:
        return await read
    except RequestRejected as error:
        if error.field != "messages":
            raise
        return otherwise


async def behind_reviews(
    asked: Prompt, n: int, client: ModelClient, read: Callable[[Prompt], Awaitable[T]]
) -> list[T]:
    """What is read behind each of n reviews that are written side by side, each read when its review is there."""

    async def after(one: Prompt) -> T:
        [review] = await client.sample(one)
        return await read(one.then(review.message()))

    return await each(after, asked.fan(n))


class Pointwise(Scorer):
    """Scores each candidate by itself, all at once."""

    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        return await each(lambda one: if_it_fits(self.judge(question, one, client), math.nan), candidates)

    @abstractmethod
    async def judge(self, question: Prompt, candidate: Completion, client: ModelClient) -> float:
        """The score of one candidate; NaN for what cannot be told."""
