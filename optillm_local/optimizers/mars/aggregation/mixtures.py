"""Mixtures: of experts, weighed by how well their approach does, and of agents, in layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optillm_local.core.errors import AggregationError
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation.base import Aggregator, synthesized
from optillm_local.optimizers.mars.aggregation.voting import score_of
from optillm_local.optimizers.mars.workspace import Draft


class MixtureOfExperts(Aggregator):
    """Approaches are experts. The best of them, gated by score, are told to one agent with their weights.

    The gate is sparse as in Shazeer et al., "Outrageously Large Neural Networks", 2017, section 2.1: a softmax
    over the `aggregation_selection_size` best experts' mean scores, nothing for the others. Each gated expert
    speaks through its best solution; the best expert's agent writes the mixture.
    """

    name = "mixture_of_experts"
    needs_verdicts = True

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        experts: dict[str, list[Draft]] = {}
        for draft in pool:
            experts.setdefault(draft.solution.metadata["approach"], []).append(draft)
        merit = {name: sum(map(score_of, made)) / len(made) for name, made in experts.items()}
        gated = sorted(experts, key=lambda name: -merit[name])[: team.config.aggregation_selection_size]
        total = math.fsum(math.exp(merit[name]) for name in gated)
        speakers = [max(experts[name], key=score_of) for name in gated]
        notes = {
            speaker.id: f" (expert: {name}, weight {math.exp(merit[name]) / total:.2f})"
            for name, speaker in zip(gated, speakers, strict=True)
        }
        writer = team.agents[speakers[0].author % len(team.agents)]
        return _some(await synthesized(team, [(writer, "experts", speakers)], notes=notes))


class MixtureOfAgents(Aggregator):
    """Layers: in each, every agent writes anew from all that the layer before wrote; one agent writes the last.

    `aggregation_loops` layers in all. Source: Wang et al., "Mixture-of-Agents Enhances Large Language Model
    Capabilities", 2024, section 2.2.
    """

    name = "mixture_of_agents"
    needs_verdicts = False

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        layer = list(pool)
        for number in range(1, team.config.aggregation_loops):
            jobs = [(agent, f"layer-{number}.{agent.number}", layer) for agent in team.agents]
            layer = await synthesized(team, jobs) or layer
        last = await synthesized(team, [(team.agents[0], "mixture", layer)])
        return last or _some([draft for draft in layer if draft not in pool])


def _some(made: list[Draft]) -> list[Draft]:
    if not made:
        raise AggregationError("no mixture was written")
    return made
