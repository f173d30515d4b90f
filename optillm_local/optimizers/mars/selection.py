"""Phase 5: one answer, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from optillm_local.core.mars_events import AnswerSynthesized, SynthesisStarted
from optillm_local.core.span import current_span, emit
from optillm_local.optimizers.mars import aggregation
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation.base import synthesized
from optillm_local.optimizers.mars.output import Quality, SelectionMethod
from optillm_local.optimizers.mars.verifier import assessed
from optillm_local.optimizers.mars.workspace import Draft

SOURCES_OF_SYNTHESIS = 3
"""A synthesis is written from the three best solutions (codelion's and the seed's)."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The chosen draft, by which rule, in words."""

    draft: Draft
    method: SelectionMethod
    selection: str


async def select(team: Team, aggregated: Sequence[Draft]) -> Selected:
    """The answer of a verified majority; else the best verified; else a synthesis; else the best by confidence.

    A majority is the answer of at least two verified solutions and of more than half of them. The synthesis is
    what aggregation made, or picks now; without one an agent writes it from the best solutions, if the budget
    allows. It counts if it states an answer. Of equals the first agent's is taken.
    """
    by_agent = sorted(team.workspace.drafts(), key=lambda draft: draft.author)
    drafts = [assessed(team, draft) for draft in by_agent]
    verified = [draft for draft in drafts if draft.solution.is_verified]
    if chosen := _verified_majority(verified):
        return chosen
    if verified:
        best = max(verified, key=rank)
        return Selected(
            best, "best_verified", f"best of {len(verified)} verified solutions, confidence {_number(best)}"
        )
    if synthesis := await _synthesis(team, drafts, aggregated):
        return synthesis
    best = max(drafts, key=rank)
    return Selected(
        best, "best_confidence", f"nothing is verified; best confidence of {len(drafts)}: {_number(best)}"
    )


def _verified_majority(verified: Sequence[Draft]) -> Selected | None:
    votes = Counter(draft.choice for draft in verified if draft.choice is not None)
    choice, count = max(votes.items(), key=lambda vote: vote[1], default=(None, 0))
    if count < 2 or 2 * count <= len(verified):
        return None
    best = max((draft for draft in verified if draft.choice == choice), key=rank)
    return Selected(best, "verified_majority", f"{count} of {len(verified)} verified solutions agree")


async def _synthesis(team: Team, drafts: Sequence[Draft], aggregated: Sequence[Draft]) -> Selected | None:
    method = team.config.aggregation
    writes = any(draft.solution.phase != "initial" for draft in aggregated)
    if aggregated and not writes:  # it picks, and there may be more to pick from by now
        heads = sorted(team.workspace.heads(), key=lambda draft: draft.author)
        aggregated = await team.attempt(aggregation.find(method)().aggregate(heads, team)) or []
        picked = [draft for draft in aggregated if draft.stated is not None]
        return _synthesized(team, picked, f"{method} of {len(heads)} solutions")
    made = [draft for draft in aggregated if draft.stated is not None and not draft.is_cut_off]
    if made:
        return _synthesized(team, made, f"{method} of {len(team.agents)} agents' solutions")
    if len(drafts) < 2 or team.spent:
        return None
    best = sorted(drafts, key=rank, reverse=True)[:SOURCES_OF_SYNTHESIS]
    emit(SynthesisStarted(span_id=current_span().id, source_solution_ids=[draft.id for draft in best]))
    written = await synthesized(team, [(team.agents[0], "synthesis", best)], step="synthesize")
    made = [draft for draft in written if draft.stated is not None]
    return _synthesized(team, made, f"synthesis of the best {len(best)}")


def _synthesized(team: Team, made: Sequence[Draft], source: str) -> Selected | None:
    if not made:
        return None
    draft = assessed(team, team.workspace.get(made[0].id))
    emit(AnswerSynthesized(span_id=current_span().id, answer=draft.solution.answer, solution_id=draft.id))
    return Selected(draft, "synthesized", f"nothing is verified; {source}")


def quality_of(team: Team, chosen: Draft) -> Quality:
    """The run in numbers."""
    drafts = team.workspace.drafts()
    stated = [draft.choice for draft in drafts if draft.choice is not None]
    verdicts = [one.probability for one in team.workspace.verifications()]
    return Quality(
        solutions=len(drafts),
        verified=len(team.workspace.verified()),
        distinct_answers=len(set(stated)),
        agreement=stated.count(chosen.choice) / len(stated) if chosen.choice is not None else 0.0,
        mean_probability=math.fsum(verdicts) / len(verdicts) if verdicts else math.nan,
        is_verified=chosen.solution.is_verified,
        confidence=chosen.solution.verification_score,
        failures=len(team.failures),
    )


def rank(draft: Draft) -> tuple[bool, bool, bool, float]:
    """Whole solutions before those that were cut, those that state an answer before others, then by confidence."""
    reason = draft.completion.finish_reason
    return not draft.is_cut_off, reason != "abort", draft.stated is not None, draft.solution.verification_score


def _number(draft: Draft) -> str:
    return f"{draft.solution.verification_score:.2f}"
