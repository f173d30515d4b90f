"""Tree of thoughts: breadth-first search over single thoughts, the best states of each level kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from optillm_local.answers import extract_answer
from optillm_local.confidence import PCorrect, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.draft import AT_AN_END
from optillm_local.optimizers.tree_search import concludes, replies, value
from optillm_local.prompts import render
from optillm_local.search import top_k


@frozen_options
class TreeOfThoughts(Optimizer):
    """Think in single steps, several at each, and go on only from the most promising states.

    A level proposes k next thoughts for each state, all at once, values each the moment it is there, and keeps the
    b best; a state that already states the answer stays as it is. From each state that is left the answer is
    written, and valued too. b = 5 and three levels are the paper's, which has the values written as words, three
    times over, where ours are read.
    """

    name: ClassVar[str] = "tot"
    description: ClassVar[str] = "breadth-first search over thoughts; only the most promising states go on"
    source: ClassVar[str] = "Yao et al., Tree of Thoughts, 2023"

    breadth: int = Field(default=5, ge=1, le=256, description="states that are kept at each level (b)")
    proposals: int = Field(default=5, ge=1, le=256, description="next thoughts of each state (k)")
    steps: int = Field(default=3, ge=1, le=64, description="levels of thoughts before the answer (T)")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of thoughts and answers (section 4)")
    scorer: PointwiseOption = Field(
        default=PCorrect(template="scorers/step"), description="values the states; a scorer"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query, temperature=self.temperature))
        search, states = _Search(self, prompt, client), [_State(prompt)]
        with span("think"):
            for _ in range(self.steps):
                found = [state for states in await each(search.expand, states) for state in states]
                states = [found[i] for i in top_k([state.worth for state in found], self.breadth)]
        with span("answer"):
            numbers = range(len(states))
            answers = [one for one in await each(lambda i: search.answer(states[i], i), numbers) if one]
        if not answers:
            raise NoSolutions("the model wrote nothing")
        best = answers[top_k([one.verification_score for one in answers], 1)[0]]
        by = f"highest {self.scorer.description} of {len(answers)} answers"
        return selected(best, f"{by}: {best.verification_score:.3f}")


@dataclass(frozen=True, slots=True)
class _State:
    """Thoughts so far.

    Attributes:
        conversation: the question and the thoughts, each behind the request for it.
        thoughts: what was thought.
        worth: the score of the last thought, in its conversation.
        is_over: whether no thought can follow.
        place: tells the state from all others.
    """

    conversation: Prompt
    thoughts: tuple[Completion, ...] = ()
    worth: float = math.nan
    is_over: bool = False
    place: tuple[int, ...] = ()


class _Search:
    """What one run does with a state."""

    def __init__(self, options: TreeOfThoughts, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client

    async def expand(self, state: _State) -> list[_State]:
        """The states that follow; the state itself if none can."""
        if state.is_over:
            return [state]
        states = await each(lambda i: self._plus(state, "thought", i), range(self._options.proposals))
        distinct = {one.thoughts[-1].text: one for one in states if one}
        return list(distinct.values()) or [replace(state, is_over=True)]

    async def answer(self, state: _State, agent: int) -> Solution | None:
        """The answer from a state: its last thought if that states it or nothing can follow; None without one."""
        if not state.is_over:
            state = await self._plus(state, "answer", 0) or state
        if not state.thoughts:
            return None
        last = state.thoughts[-1]
        stated = extract_answer(last.text)
        solution = candidate(last, self._prompt, "answer", agent, answer=stated, verification_score=state.worth)
        return revise(solution.but(reasoning="\n\n".join(one.text for one in state.thoughts)))

    async def _plus(self, state: _State, step: str, number: int) -> _State | None:
        """The state with one more thought, and its worth; None if there is nothing."""
        place = (*state.place, number)
        asked = state.conversation.instructed(render(f"tot/{step}"))
        said = await replies(self._client, asked.step(step, *place), self._prompt, ends=AT_AN_END)
        if not said:
            return None
        worth = await value(self._options.scorer, asked, said[0], self._client)
        is_over = concludes(said[0]) or said[0].finish_reason == "abort"
        return _State(asked.then(said[0].message()), (*state.thoughts, said[0]), worth, is_over, place)
