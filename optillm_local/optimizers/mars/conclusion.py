"""The end of a run: selects, rates what was shown to the agents, and packs everything into the output."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from optillm_local.core.budget import Meter
from optillm_local.core.events import AnswerSelected
from optillm_local.core.mars_events import Completed, SelectionStarted
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, span
from optillm_local.core.thinking import CLOSE, OPEN, split_thinking
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.coordinator import Coordinator
from optillm_local.optimizers.mars.ledger import Ledger
from optillm_local.optimizers.mars.output import Calibration, MarsOutput
from optillm_local.optimizers.mars.selection import Selected, quality_of, select


async def conclude(team: Team, coordinator: Coordinator, ledger: Ledger, deadline: Meter) -> MarsOutput:
    """Phase 5, and what remains of the run when it is over."""
    chosen = await _selected(team, coordinator, deadline)
    if not team.spent and not deadline.exhausted:  # a run that was cut short says nothing of its strategies
        coordinator.rate_shown(chosen.draft.solution.is_verified)
    output = await _packed(team, coordinator, chosen, ledger, deadline)
    team.workspace.complete({"answer": output.answer, **output.as_dict()})
    emit(
        Completed(
            span_id=current_span().id,
            final_answer=output.answer,
            method=output.selection_method,
            confidence=output.quality.confidence,
            iterations=output.iterations,
        )
    )
    return output


async def _selected(team: Team, coordinator: Coordinator, deadline: Meter) -> Selected:
    with span("selection") as here:
        drafts, verified = team.workspace.drafts(), team.workspace.verified()
        emit(SelectionStarted(span_id=here.id, num_solutions=len(drafts), num_verified=len(verified)))
        chosen = await select(team, coordinator.aggregated)
        if deadline.exhausted:
            seconds = f"{team.config.timeout_seconds:g}"
            chosen = replace(
                chosen, selection=f"{chosen.selection}; timeout_seconds={seconds} ended the run early"
            )
        solution = chosen.draft.solution
        emit(
            AnswerSelected(
                span_id=here.id, solution_id=solution.id, answer=solution.answer, selection=chosen.selection
            )
        )
        return chosen


async def _packed(
    team: Team, coordinator: Coordinator, chosen: Selected, ledger: Ledger, deadline: Meter
) -> MarsOutput:
    config, workspace = team.config, team.workspace
    solutions = [draft.solution for draft in workspace.drafts()]
    verifications, reference = workspace.verifications(), config.reference_answer
    output = MarsOutput(
        solution=chosen.draft.solution,
        all_solutions=solutions,
        verifications=verifications,
        selection_method=chosen.method,
        selection=chosen.selection,
        iterations=coordinator.iterations,
        quality=quality_of(team, chosen.draft),
        usage=ledger.total,
        usage_by_phase=ledger.by("phase"),
        usage_by_agent=ledger.by("agent"),
        usage_by_purpose=ledger.by("purpose"),
        failures=[str(failure) for failure in (*team.failures, workspace.not_kept) if failure],
        strategies={
            "shown": [one.technique for one in team.strategies],
            "learned": [one.technique for one in coordinator.learned],
        },
        calibration=await Calibration.of(solutions, verifications, reference) if reference else None,
        is_lightweight=config.is_lightweight(team.question.sampling.max_tokens),
        budget_exhausted=any(meter.exhausted for meter in current_span().meters if meter is not deadline),
        timed_out=deadline.exhausted,
        seed=team.question.sampling.seed,
        text=_text(chosen.draft.solution) if config.use_thinking_tags else chosen.draft.solution.answer,
        completed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    about = {"selection": chosen.selection, "mars": output.as_dict()}
    return replace(output, solution=output.solution.but(metadata=about))


def _text(solution: Solution) -> str:
    """The answer behind what led to it, whose own tags would end the thought too soon."""
    thought = "\n\n".join(part for part in split_thinking(solution.reasoning) if part)
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{solution.answer}"
