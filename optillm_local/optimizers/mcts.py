"""Monte Carlo tree search over a dialogue: which reply leads to the best conversation?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import MEANINGS, Levels
from optillm_local.confidence.pointwise import PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.growing import replies, value
from optillm_local.prompts import render
from optillm_local.search import Node, backpropagate, best_child, expand, release, select_leaves

CRITERIA = (
    "what I asked first is answered correctly",
    "the conversation stays with what I asked",
    "every reply follows from what was said before",
)
"""What a dialogue is graded by."""

TURN_TOKENS = 1024
"""Most tokens of a turn that is written for the user, as in codelion's optillm."""


@frozen_options
class MCTS(Optimizer):
    """Search for the reply with the best continuations, by UCT over dialogue states.

    An action is a reply to the user. A visit of a reply plays the dialogue on: the model says what the user might
    say next and replies to it, `depth` times, and the last reply is graded in its conversation. A reply that was
    visited before is expanded first, into replies to the user's next turn. The answer is the first reply with the
    most visits, of equals the one with the highest mean grade.

    Several leaves are visited side by side, kept apart by virtual losses, and the grades are read and not written.
    Defaults are those of codelion's optillm, which plays one visit after the other, expands before each, asks for
    turns and replies that nothing depends on, and loses the user's turns from the history.
    """

    name: ClassVar[str] = "mcts"
    description: ClassVar[str] = "tree search over the dialogue: the reply whose continuations grade best"
    source: ClassVar[str] = "Kocsis and Szepesvari, Bandit Based Monte-Carlo Planning, 2006; optillm mcts"

    simulations: int = Field(default=2, ge=1, le=4096, description="visits in all")
    exploration: float = Field(default=0.2, ge=0, description="weight of the exploration term of UCT")
    depth: int = Field(default=1, ge=0, le=64, description="turns that a visit plays the dialogue on")
    actions: int = Field(default=3, ge=1, le=256, description="replies that a state is expanded into")
    parallel: int = Field(
        default=2, ge=1, le=4096, description="visits side by side; the fewer, the better guided"
    )
    scorer: PointwiseOption = Field(
        default=Levels(criteria=CRITERIA), description=f"values the dialogues. {MEANINGS}"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        search = _Search(self, self.scorer.sampled(Prompt.of(query)), client)
        with span("expand"):
            await search.begin()
        with span("simulate"):
            await search.run()
        return search.best()


@dataclass(slots=True)
class _State:
    """What was said so far: a reply, and the conversation that it answers.

    Attributes:
        asked: the conversation before the reply; at the root, the question.
        place: tells the state from all others, whatever is visited first.
        following: the conversation that is to be answered next, once the user's next turn was asked for.
        is_over: whether nothing can follow.
    """

    asked: Prompt
    reply: Completion | None = None
    place: tuple[int, ...] = ()
    following: Prompt | None = None
    is_over: bool = False


class _Search:
    """The tree of one run. States are written while they are visited, each by one visit at a time."""

    def __init__(self, options: MCTS, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self._root = Node(_State(prompt, following=prompt))
        self._solutions: list[Solution] = []

    async def begin(self) -> None:
        """Expand the root: its children are the candidates.

        Raises:
            NoSolutions: no reply says anything.
        """
        for number, child in enumerate(await self._expand(self._root)):
            if child.state.reply:
                self._solutions.append(candidate(child.state.reply, self._prompt, "expand", number))
        if not self._solutions:
            raise NoSolutions("none of the replies says anything")

    async def run(self) -> None:
        """Visit leaves, several side by side; a round ends before the next so that a seed repeats the search."""
        left = self._options.simulations
        while left:
            leaves = select_leaves(self._root, min(left, self._options.parallel), self._options.exploration)
            for node, worth in await each(self._visit, leaves):
                if math.isfinite(worth):
                    backpropagate(node, worth)
                else:
                    release(node)
            for place, child in enumerate(self._root.children):
                if child.visits:
                    self._solutions[place] = revise(self._solutions[place].but(verification_score=child.mean))
            left -= len(leaves)

    def best(self) -> Solution:
        """The candidate with the most visits, of equals the one with the highest mean."""
        best = best_child(self._root) or self._root.children[0]
        solution = self._solutions[self._root.children.index(best)]
        return selected(solution, f"{best.visits} of {self._root.visits} visits, mean value {best.mean:.3f}")

    async def _visit(self, leaf: Node[_State]) -> tuple[Node[_State], float]:
        """The node that is visited, the leaf or a child of it, and its value; NaN if there is none."""
        if leaf.visits:
            leaf, *_ = [*await self._expand(leaf), leaf]
        if leaf.visits:  # nothing can follow, so its value is known
            return leaf, leaf.mean
        state = await self._play_on(leaf.state)
        if state.reply is None:
            return leaf, math.nan
        return leaf, await value(self._options.scorer, state.asked, state.reply, self._client)

    async def _expand(self, node: Node[_State]) -> list[Node[_State]]:
        following = await self._following(node.state)
        if following is None:
            return []
        asked = following.step("reply", *node.state.place)
        said = await replies(self._client, asked, self._prompt, n=self._options.actions)
        distinct = {reply.text: reply for reply in said}.values()
        node.state.is_over = not distinct
        return expand(node, [_State(following, reply, (*node.state.place, i)) for i, reply in enumerate(distinct)])

    async def _play_on(self, state: _State) -> _State:
        """The state some turns later, or where the dialogue ends."""
        for _ in range(self._options.depth):
            following = await self._following(state)
            if following is None:
                break
            said = await replies(self._client, following.step("rollout", *state.place), self._prompt)
            if not said:
                break
            state = _State(following, said[0], (*state.place, 0))
        return state

    async def _following(self, state: _State) -> Prompt | None:
        """The conversation with what the user says next; None where it is over."""
        if state.following or state.is_over or state.reply is None:
            return state.following
        said = state.asked.then(state.reply.message())
        asked = said.then(Message("user", render("mcts/next_turn")))
        turns = await replies(
            self._client, asked.step("next_turn", *state.place, at_most=TURN_TOKENS), self._prompt
        )
        text = turns[0].answer.strip() if turns else ""
        state.is_over = not text or text.casefold().startswith("goodbye")
        state.following = None if state.is_over else said.then(Message("user", text))
        return state.following
