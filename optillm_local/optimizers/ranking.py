"""Candidates that a scorer ranks, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from optillm_local.confidence import Scorer
from optillm_local.core.client import ModelClient
from optillm_local.core.concurrency import each
from optillm_local.core.errors import BudgetExceeded, NoSolutions
from optillm_local.core.generation import Generation
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import NOTHING_WRITTEN, first_whole, is_whole, selected


class Ranking:
    """Candidates for one question, scored each when it is there, or all against one another at the end.

    Without a score, and so behind all others, are those that were aborted, those that ended in their thoughts, and
    those that a spent budget left unjudged. What says nothing is left out.

    Args:
        scorer: what the best is best by.
        question: what the candidates answer.
        client: the model.
        enough: a score at which no further candidate is needed.

    Attributes:
        is_settled: whether a score is `enough`.
    """

    def __init__(
        self, scorer: Scorer, question: Prompt, client: ModelClient, *, enough: float | None = None
    ) -> None:
        self._scorer, self._question, self._client = scorer, question, client
        self._enough = math.inf if enough is None else enough
        self._candidates: dict[int, Solution] = {}
        self.is_settled = False

    @property
    def candidates(self) -> list[Solution]:
        """In the order of their places, with the scores they have by now."""
        return [self._candidates[place] for place in sorted(self._candidates)]

    @property
    def leader(self) -> Solution | None:
        """The candidate with the highest score; of equals a whole one, then the likeliest, then the first."""
        return max(self.candidates, key=_rank, default=None)

    async def enter(self, place: int, candidate: Solution, group: Generation | None = None) -> None:
        """Add a candidate. What `group` still writes is aborted once a score is `enough`."""
        if not candidate.answer:
            return
        self._candidates[place] = candidate
        if self._scorer.comparative:
            return
        await self._score([place])
        score = self._candidates[place].verification_score
        if score >= self._enough:
            self.is_settled = True
            if group:
                group.stop(because=f"{self._scorer.description} {score:.3f} is enough")

    async def best(self) -> Solution:
        """The leader, once all are scored, as the answer.

        Raises:
            NoSolutions: no candidate says anything.
        """
        if self._scorer.comparative:
            with span("compare"):
                await self._score(sorted(self._candidates))
        if self.leader is None:
            raise NoSolutions(NOTHING_WRITTEN)
        scores = [one.verification_score for one in self.candidates]
        scored = sum(not math.isnan(score) for score in scores)
        if not scored:
            return selected(self.leader, f"the likeliest of {len(scores)}, none of them judged")
        how = f"highest {self._scorer.description} of {scored}: {self.leader.verification_score:.3f}"
        return selected(self.leader, how + (f"; {n} not judged" if (n := len(scores) - scored) else ""))

    async def _score(self, places: Sequence[int]) -> None:
        answers = {
            place: one
            for place in places
            if (one := self._candidates[place].completion) and one.answer.strip() and one.finish_reason != "abort"
        }
        if not answers:
            return
        try:
            scores = await self._scorer.score(self._question, list(answers.values()), self._client)
        except BudgetExceeded:  # an unjudged candidate is still a candidate
            return
        for place, score in zip(answers, scores, strict=True):
            self._candidates[place] = revise(self._candidates[place].but(verification_score=score))


async def best_of(
    n: int, make: Callable[[int], Awaitable[Solution]], scorer: Scorer, question: Prompt, client: ModelClient
) -> Solution:
    """Make n candidates side by side and return the best; a single one is not scored.

    Raises:
        NoSolutions: no candidate says anything.
    """
    if n == 1:
        return selected(first_whole([await make(0)]), "the only candidate")
    ranking = Ranking(scorer, question, client)

    async def enter(place: int) -> None:
        await ranking.enter(place, await make(place))

    await each(enter, range(n))
    return await ranking.best()


def _rank(candidate: Solution) -> tuple[float, bool, float]:
    score, completion = candidate.verification_score, candidate.completion
    likely = completion.mean_logprob if completion else math.nan
    return _known(score), bool(completion and is_whole(completion)), _known(likely)


def _known(score: float) -> float:
    return -math.inf if math.isnan(score) else score
