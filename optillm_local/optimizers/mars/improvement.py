"""Phase 4: what is not verified is rewritten by another agent, who is told what the reviewers said."""

from __future__ import annotations

from dataclasses import replace

from optillm_local.core.mars_events import SolutionImproved
from optillm_local.core.span import current_span, emit
from optillm_local.optimizers.mars.agents import Agent, Team
from optillm_local.optimizers.mars.workspace import Draft
from optillm_local.prompts import render

CUT_OFF = "It was cut off before it stated an answer; be shorter."


def feedback_on(draft: Draft, team: Team) -> list[str]:
    """What an improver is told: the reviews that found it wrong; empty if none did."""
    if draft.is_cut_off:
        return [CUT_OFF]
    return [one.feedback for one in team.workspace.verifications(draft.id) if not one.passed]


async def improve(draft: Draft, team: Team, *, turn: int) -> Draft | None:
    """The draft, rewritten by another agent than its author: in each turn by the next of the others.

    Returns:
        None if the agent changed nothing.

    Raises:
        ImprovementError: the agent fails, or says nothing.
    """
    others = team.others(draft.author)
    agent = others[turn % len(others)]
    improved = await rewritten(draft, team, agent, "improve", solution_id=_next_id(draft.id))
    if improved:
        here = current_span().id
        emit(SolutionImproved(span_id=here, solution_id=improved.id, parent_id=draft.id, agent_id=agent.id))
    return improved


async def rewritten(draft: Draft, team: Team, agent: Agent, step: str, *, solution_id: str) -> Draft | None:
    """A better version by `agent`, from what the reviewers said; None if it changed nothing.

    It goes on from the solution's own conversation, so its tokens are cached. A solution that is a rewriting
    itself is put behind what its author was asked at first: conversations do not grow with the rounds.
    """
    told = render("mars/improve", feedback=feedback_on(draft, team), how=agent.approach.how)
    if draft.solution.metadata.get("rewritten"):
        draft = replace(draft, asked=team.to_solve(team.everyone[draft.author]))
    asked = draft.then(told)
    completion = await team.write(agent, asked, step, about=solution_id)
    if completion.text.strip() == draft.completion.text.strip():
        return None
    return await team.propose(
        completion, agent, asked, step, solution_id=solution_id, parents=[draft], rewritten=True
    )


def _next_id(solution_id: str) -> str:
    """`explore-0`, `explore-0+1`, `explore-0+2`: the line of improvements of one solution."""
    base, _, number = solution_id.partition("+")
    return f"{base}+{int(number or 0) + 1}"
