"""Candidates of optimizers that work in several steps: how they are written, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.errors import NoSolutions
from optillm_local.core.events import AnswerSelected
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, span

NOTHING_WRITTEN = "the model wrote nothing; if it thinks, max_tokens may be too small"


def said(completion: Completion) -> str:
    """What others are shown of a completion: without its thoughts, unless these are all there is."""
    return completion.answer.strip() or completion.reasoning.strip() or completion.text.strip()


def is_whole(completion: Completion) -> bool:
    """Whether it ended by itself, and not with its thoughts."""
    return completion.finish_reason == "stop" and bool(completion.answer.strip())


def asking(prompt: Prompt, question: str) -> Prompt:
    """The conversation with another question in the place of its last."""
    last = max((at for at, one in enumerate(prompt.messages) if one.role == "user"), default=0)
    return replace(prompt, messages=(*prompt.messages[:last], Message("user", question)))


async def ask(asked: Prompt, client: ModelClient) -> Completion:
    """What the model says at a step, in a span that is called like the step."""
    with span(asked.log_tag or "ask"):
        [completion] = await client.sample(asked)
    return completion


async def written(
    asked: Prompt,
    client: ModelClient,
    *parents: Solution,
    agent: int = 0,
    read: Callable[[Completion], str] = said,
) -> Solution:
    """What the model says at a step, as a candidate whose answer `read` takes from it."""
    completion = await ask(asked, client)
    phase = asked.log_tag or "ask"
    return candidate(completion, asked, phase, agent, answer=read(completion), parents=ids(parents))


def candidate(
    completion: Completion,
    asked: Prompt,
    phase: str,
    agent: int | str = 0,
    *,
    answer: str | None = None,
    **about: Any,
) -> Solution:
    """A candidate, put on the record if it says anything; without `answer`, its answer is what it `said`."""
    solution = Solution.of(
        completion,
        answer=said(completion) if answer is None else answer,
        agent_id=f"agent-{agent}",
        phase=phase,
        temperature=asked.sampling.temperature,
        metadata={"finish_reason": completion.finish_reason},
        **about,
    )
    return keep(solution) if solution.answer else solution


def ids(solutions: Iterable[Solution]) -> tuple[str, ...]:
    """For `Solution.parents`."""
    return tuple(one.id for one in solutions)


def first_whole(candidates: Sequence[Solution]) -> Solution:
    """The first that is whole; without one, the first that says anything.

    Raises:
        NoSolutions: none says anything.
    """
    said_something = [one for one in candidates if one.answer]
    if not said_something:
        raise NoSolutions(NOTHING_WRITTEN)
    return next((one for one in said_something if one.completion and is_whole(one.completion)), said_something[0])


def selected(solution: Solution, selection: str, **about: Any) -> Solution:
    """The answer; how it was chosen is told, and said in its `metadata`."""
    emit(
        AnswerSelected(
            span_id=current_span().id, solution_id=solution.id, answer=solution.answer, selection=selection
        )
    )
    return solution.but(metadata={"selection": selection, **about})
