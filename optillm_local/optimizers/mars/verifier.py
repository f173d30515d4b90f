"""Phase 2: every solution is judged by other agents, the moment it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from optillm_local.core.concurrency import Stoppable, each
from optillm_local.core.mars_events import SolutionVerified, VerificationStarted
from optillm_local.core.span import current_span, emit, revise, span
from optillm_local.optimizers.mars.agents import Agent, Team
from optillm_local.optimizers.mars.consensus import Confidence, Consensus
from optillm_local.optimizers.mars.workspace import Draft, Verification


@dataclass
class _Hearing:
    """Who is to speak, in a fixed order; what they said; and who may stand in for one that fails."""

    judges: list[Agent]
    substitutes: list[Agent]
    verdicts: dict[int, Verification] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def probabilities(self) -> list[float | None]:
        """In the order of the judges; None is outstanding, and who failed without a substitute is left out."""
        seats = [seat for seat in range(len(self.judges)) if seat not in self.lost]
        return [self.verdicts[seat].probability if seat in self.verdicts else None for seat in seats]


class Verifier:
    """Collects verdicts, and ends those that can no longer change whether the solution is verified."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self.consensus = Consensus(team.config.consensus_threshold, team.config.confident_failure)

    async def verify(self, draft: Draft) -> Draft:
        """The draft with what the verdicts say of it.

        A solution that was cut off before it stated an answer is not judged: it cannot be correct. One whose
        verifiers all failed stays as it is.
        """
        if draft.is_cut_off:
            return draft
        with span("verification"):
            others = self._team.others(draft.author)
            hearing = _Hearing(others[: self._team.config.verifiers], others[self._team.config.verifiers :])
            names = [agent.id for agent in hearing.judges]
            emit(VerificationStarted(span_id=current_span().id, solution_id=draft.id, verifiers=names))
            try:
                await self._hear(draft, hearing)
            finally:  # what ends the wait may be another solution's verdict; those that are in still count
                if hearing.verdicts and self._is_settled(hearing):
                    draft = self._concluded(draft, hearing)
            return draft

    async def _hear(self, draft: Draft, hearing: _Hearing) -> None:
        """Collect the verdicts until they settle it.

        Reviews are written side by side. Reads are asked one after the other: each takes a single step, and of
        a solution that fails the rest need not be asked, which is most of what it would have cost.
        """
        seats = range(len(hearing.judges))
        if self._team.config.verification == "read":
            for seat in seats:
                if await self._settles(seat, draft, hearing):
                    return
            return
        with Stoppable() as reviews:

            async def judge(seat: int) -> None:
                if await self._settles(seat, draft, hearing):
                    reviews.stop("the verdicts were decided")

            await each(judge, seats)

    async def _settles(self, seat: int, draft: Draft, hearing: _Hearing) -> bool:
        """Ask; whether the others need not be heard any more. A judge that fails settles nothing."""
        await self._ask(seat, draft, hearing)
        return seat in hearing.verdicts and self._is_settled(hearing)

    async def _ask(self, seat: int, draft: Draft, hearing: _Hearing) -> None:
        """The verdict of a judge, or of a substitute if that one fails."""
        agent: Agent | None = hearing.judges[seat]
        while agent and not self._team.spent:
            if verdict := await self._team.attempt(self._team.judge(agent, draft)):
                hearing.verdicts[seat] = verdict
                self._team.record(verdict)
                return
            agent = hearing.substitutes.pop(0) if hearing.substitutes else None
        hearing.lost.add(seat)

    def _is_settled(self, hearing: _Hearing) -> bool:
        return self.consensus.is_settled(hearing.probabilities())

    def _concluded(self, draft: Draft, hearing: _Hearing) -> Draft:
        verdicts = hearing.verdicts.values()
        passes = sum(verdict.passed for verdict in verdicts)
        verified = self.consensus.is_verified(hearing.probabilities())
        judged = draft.solution.but(
            is_verified=verified, verification_passes=passes, verification_failures=len(verdicts) - passes
        )
        draft = assessed(self._team, replace(draft, solution=judged))
        solution, parts = draft.solution, draft.solution.metadata["confidence"]
        emit(
            SolutionVerified(
                span_id=current_span().id,
                solution_id=draft.id,
                is_correct=verified,
                score=solution.verification_score,
                passes=passes,
                failures=len(verdicts) - passes,
                parts=parts,
            )
        )
        return draft


def assessed(team: Team, draft: Draft) -> Draft:
    """The draft with its confidence, as far as it is known by now, as the score; its parts are in the metadata."""
    workspace = team.workspace
    verdicts = [one.probability for one in workspace.verifications(draft.id)]
    others = [other.choice for other in workspace.heads() if other.id != draft.id]
    confidence = Confidence.of(verdicts, draft.choice, others, draft.completion.mean_logprob)
    solution = draft.solution.but(
        verification_score=confidence.value, metadata={"confidence": confidence.as_dict()}
    )
    return workspace.revise(revise(solution))
