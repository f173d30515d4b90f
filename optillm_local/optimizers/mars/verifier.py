"""Phase 2: every solution is judged by other agents, the moment it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from optillm_local.core.concurrency import task_group
from optillm_local.core.mars_events import SolutionVerified, VerdictRead, VerificationStarted
from optillm_local.core.span import current_span, emit, revise, span
from optillm_local.optimizers.mars.agents import Agent, Team
from optillm_local.optimizers.mars.consensus import Confidence, Consensus
from optillm_local.optimizers.mars.workspace import Draft, Verification


@dataclass
class _Hearing:
    """The agents that have yet to speak, and the verdicts of those that have."""

    outstanding: list[Agent]
    verdicts: list[Verification] = field(default_factory=list)


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
            hearing = _Hearing(self._team.others(draft.author, self._team.config.verifiers))
            names = [agent.id for agent in hearing.outstanding]
            emit(VerificationStarted(span_id=current_span().id, solution_id=draft.id, verifiers=names))
            try:
                await self._hear(draft, hearing)
            finally:  # what ends the wait may be another solution's verdict; those that are in still count
                if hearing.verdicts and self._is_settled(hearing):
                    draft = self._concluded(draft, hearing.verdicts)
            return draft

    async def _hear(self, draft: Draft, hearing: _Hearing) -> None:
        """Collect the verdicts until they settle it.

        Reviews are written side by side. Reads are asked one after the other: each takes a single step, and of
        a solution that fails the rest need not be asked, which is most of what it would have cost.
        """
        judges = tuple(hearing.outstanding)
        if self._team.config.verification == "read":
            for agent in judges:
                if not self._is_settled(hearing):
                    await self._ask(agent, draft, hearing)
            return
        async with task_group() as tasks:

            async def judge(agent: Agent) -> None:
                await self._ask(agent, draft, hearing)
                if self._is_settled(hearing):
                    tasks.cancel_scope.cancel()

            for agent in judges:
                tasks.start_soon(judge, agent)

    async def _ask(self, agent: Agent, draft: Draft, hearing: _Hearing) -> None:
        verdict = await self._team.attempt(self._team.judge(agent, draft))
        hearing.outstanding.remove(agent)
        if verdict:
            hearing.verdicts.append(verdict)
            self._record(verdict)

    def _is_settled(self, hearing: _Hearing) -> bool:
        probabilities = [one.probability for one in hearing.verdicts]
        return self.consensus.is_settled(probabilities, len(hearing.outstanding))

    def _record(self, verdict: Verification) -> None:
        self._team.workspace.record(verdict)
        emit(
            VerdictRead(
                span_id=current_span().id,
                solution_id=verdict.solution_id,
                agent_id=verdict.agent_id,
                probability=verdict.probability,
                label_mass=verdict.label_mass,
                feedback=verdict.feedback,
            )
        )

    def _concluded(self, draft: Draft, verdicts: Sequence[Verification]) -> Draft:
        passes = sum(verdict.passed for verdict in verdicts)
        verified = self.consensus.is_verified([verdict.probability for verdict in verdicts])
        judged = draft.solution.but(
            is_verified=verified, verification_passes=passes, verification_failures=len(verdicts) - passes
        )
        draft = assessed(self._team, self._team.workspace.revise(judged))
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
