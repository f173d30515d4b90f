"""Strategies that write nothing: they say which solution stands for the pool."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optillm_local.answers import Tally
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation.base import Aggregator
from optillm_local.optimizers.mars.workspace import Draft


class Majority(Aggregator):
    """The answer that most solutions state; of those, the one with the best score. The first of equals."""

    name = "majority"
    needs_verdicts = True

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        tally = Tally.of([draft.choice for draft in pool], [self._weight(draft) for draft in pool])
        voters = [draft for draft in pool if draft.choice == tally.winner]
        return [max(voters, key=score_of)]

    def _weight(self, draft: Draft) -> float:
        return 1.0


class WeightedMajority(Majority):
    """The same, each vote weighing as much as its solution's score."""

    name = "weighted_majority"

    def _weight(self, draft: Draft) -> float:
        return max(0.0, score_of(draft))


class BestOfN(Aggregator):
    """The solution with the best score."""

    name = "best_of_n"
    needs_verdicts = True

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        return [max(pool, key=score_of)]


def score_of(draft: Draft) -> float:
    """A draft's confidence by now; below all others if nobody judged it."""
    score = draft.solution.verification_score
    return -1.0 if math.isnan(score) else score
