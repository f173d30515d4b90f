"""Recursive self-aggregation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from optillm_local.core.errors import AggregationError
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation.base import Aggregator, synthesized
from optillm_local.optimizers.mars.workspace import Draft


class RecursiveSelfAggregation(Aggregator):
    """In each loop, every member of a new generation is made from a random subset of the last one, all at once.

    The member that states what most of the last generation state stands for the result. Source: Venkatraman et
    al., "Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models", 2025, algorithm 1 (N
    members, K of them for each new one, T loops); N, K, T = 6, 3, 3 are codelion's and the seed's. The first
    generation is made from as many solutions as were explored.
    """

    name = "rsa"
    needs_verdicts = False

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        config, generation = team.config, list(pool)
        for loop in range(config.aggregation_loops):
            rng = random.Random(team.seed("rsa", loop))
            jobs = [
                (
                    team.agents[member % len(team.agents)],
                    f"rsa-{loop + 1}.{member}",
                    rng.sample(generation, min(config.aggregation_selection_size, len(generation))),
                )
                for member in range(config.aggregation_population_size)
            ]
            made = await synthesized(team, jobs)
            if not made and loop == 0:
                raise AggregationError("no member was written")
            if not made:
                break
            generation = made
        return _most_agreed_first(generation)


def _most_agreed_first(generation: Sequence[Draft]) -> list[Draft]:
    choices = [draft.choice for draft in generation]
    return sorted(generation, key=lambda draft: 0 if draft.choice is None else -choices.count(draft.choice))
