"""What an aggregation strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from optillm_local.core.concurrency import each
from optillm_local.optimizers.mars.agents import Agent, Team
from optillm_local.optimizers.mars.workspace import Draft
from optillm_local.prompts import render


class Aggregator(ABC):
    """Makes new solutions of a pool, or picks from it.

    Attributes:
        name: how it is chosen.
        needs_verdicts: whether it ranks by verdicts. If not, it runs while the pool is still being verified.
    """

    name: ClassVar[str]
    needs_verdicts: ClassVar[bool]

    @abstractmethod
    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        """The result: new drafts (through `team.solve`) or members of the pool, what stands for it all first.

        New ones are verified and improved like any other solution.

        Raises:
            AggregationError: no result came out.
        """


async def synthesized(
    team: Team,
    jobs: Sequence[tuple[Agent, str, Sequence[Draft]]],
    *,
    step: str = "aggregate",
    notes: Mapping[str, str] | None = None,
) -> list[Draft]:
    """One new solution for each (agent, id, sources), all at once; those that fail or are cut off are left out.

    Sources stand in the order of their agents: members with the same first sources share their prefix.
    """

    async def write(job: tuple[Agent, str, Sequence[Draft]]) -> Draft | None:
        agent, solution_id, sources = job
        sources = sorted(sources, key=lambda draft: (draft.author, draft.id))
        candidates = [{"text": _text(one), "note": (notes or {}).get(one.id, "")} for one in sources]
        asked = team.question.instructed(render("mars/aggregate", candidates=candidates, how=agent.approach.how))
        return await team.attempt(team.solve(agent, asked, step, solution_id=solution_id, parents=sources))

    return [draft for draft in await each(write, jobs) if draft and not draft.is_cut_off]


def _text(draft: Draft) -> str:
    """What others are shown of a solution: without its thoughts, unless these are all there is."""
    return draft.completion.answer or draft.solution.reasoning.strip()
