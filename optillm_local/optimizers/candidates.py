"""Candidates of optimizers that work in several steps: what is kept of them, and how one of them is chosen."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from optillm_local.confidence import Scorer
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import NoSolutions
from optillm_local.core.events import AnswerSelected
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, revise, span


def said(completion: Completion) -> str:
    """What others are shown of a completion: without its thoughts, unless these are all there is."""
    return completion.answer.strip() or completion.text.strip()


def is_whole(completion: Completion) -> bool:
    """Whether it ended by itself, and not with its thoughts."""
    return completion.finish_reason == "stop" and bool(completion.answer.strip())


def asking(prompt: Prompt, question: str) -> Prompt:
    """The conversation with another question in the place of its last."""
    last = max((at for at, one in enumerate(prompt.messages) if one.role == "user"), default=0)
    return replace(prompt, messages=(*prompt.messages[:last], Message("user", question)))


def candidate(
    completion: Completion, asked: Prompt, phase: str, agent: int = 0, *, answer: str | None = None, **about: Any
) -> Solution:
    """A candidate, put on the record if it says anything; without `answer`, its answer is what it `said`.

    Of candidates without a score, the last one kept is what a spent budget returns. So what a budget cut off is
    only kept if nothing else is.
    """
    solution = Solution.of(
        completion,
        answer=said(completion) if answer is None else answer,
        agent_id=f"agent-{agent}",
        phase=phase,
        temperature=asked.sampling.temperature,
        metadata={"finish_reason": completion.finish_reason},
        **about,
    )
    is_needed = completion.finish_reason != "abort" or not current_span().run.solutions
    return keep(solution) if is_needed and solution.answer else solution


def ids(solutions: Iterable[Solution]) -> tuple[str, ...]:
    """For `Solution.parents`."""
    return tuple(one.id for one in solutions)


def first_whole(candidates: Sequence[Solution]) -> Solution:
    """The first that is whole; without one, the first that says anything.

    Raises:
        NoSolutions: none says anything.
    """
    written = [one for one in candidates if one.answer]
    if not written:
        raise NoSolutions("the model wrote nothing; if it thinks, max_tokens may be too small")
    return next((one for one in written if one.completion and is_whole(one.completion)), written[0])


def selected(solution: Solution, selection: str) -> Solution:
    """The answer; how it was chosen is told, and said in its `metadata`."""
    emit(
        AnswerSelected(
            span_id=current_span().id, solution_id=solution.id, answer=solution.answer, selection=selection
        )
    )
    return solution.but(metadata={"selection": selection})


async def best_scored(
    make: Callable[[int], Awaitable[Solution]], n: int, scorer: Scorer, question: Prompt, client: ModelClient
) -> Solution:
    """Make n candidates side by side and return the one with the highest score; a single one is not scored.

    Each is scored when it is there, or, if they are compared with one another, all of them at the end. Of equals
    a whole one wins, then the first.

    Raises:
        NoSolutions: none says anything.
    """

    async def one(number: int) -> Solution:
        solution = await make(number)
        if n == 1 or scorer.comparative:
            return solution
        return (await _scored([solution], scorer, question, client))[0]

    candidates = await each(one, range(n))
    if n > 1 and scorer.comparative:
        with span("compare"):
            candidates = await _scored(candidates, scorer, question, client)
    best = first_whole(sorted(candidates, key=lambda made: -_known(made.verification_score)))
    if math.isnan(best.verification_score):
        return selected(best, f"the first of {n} that is whole, not scored" if n > 1 else "the only candidate")
    return selected(best, f"highest {scorer.description} of {n}: {best.verification_score:.3f}")


async def _scored(
    candidates: Sequence[Solution], scorer: Scorer, question: Prompt, client: ModelClient
) -> list[Solution]:
    written = {one.id: one.completion for one in candidates if one.completion and one.answer}
    if not written:
        return list(candidates)
    scores = await scorer.score(question, list(written.values()), client)
    scored = dict(zip(written, scores, strict=True))
    return [revise(one.but(verification_score=scored.get(one.id, math.nan))) for one in candidates]


def _known(score: float) -> float:
    return -math.inf if math.isnan(score) else score
