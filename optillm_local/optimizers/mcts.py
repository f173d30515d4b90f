"""Monte Carlo tree search over a dialogue: which reply leads to the best conversation?"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import Levels, ProbabilityOption
from optillm_local.core.client import ModelClient
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.dialogue import Dialogue, Player
from optillm_local.optimizers.tree_search import visits
from optillm_local.search import Node, backpropagate, best_child, expand, release, select_leaves

CRITERIA = (
    "what I asked first is answered correctly",
    "the conversation stays with what I asked",
    "every reply follows from what was said before",
)
"""What a dialogue is graded by."""


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
    scorer: ProbabilityOption = Field(
        default=Levels(criteria=CRITERIA), description="values the dialogues, 0 to 1; a scorer"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        question = Prompt.of(query)
        search = _Search(self, Player(question, client, self.scorer))
        with span("expand"):
            await search.begin(question)
        with span("simulate"):
            await search.run()
        return search.best()


class _Search:
    """The tree of one run. A dialogue changes while it is visited, by one visit at a time."""

    def __init__(self, options: MCTS, player: Player) -> None:
        self._options, self._player = options, player
        self._root = Node(player.begin())
        self._solutions: list[Solution] = []

    async def begin(self, question: Prompt) -> None:
        """Expand the root: its children are the candidates.

        Raises:
            NoSolutions: no reply says anything.
        """
        for number, child in enumerate(await self._expand(self._root)):
            self._solutions.append(candidate(child.state.reply, question, "expand", number))
        if not self._solutions:
            raise NoSolutions("none of the replies says anything")

    async def run(self) -> None:
        """All visits."""
        options = self._options
        await visits(
            options.simulations,
            options.parallel,
            lambda room: select_leaves(self._root, room, options.exploration),
            self._visit,
            self._tell,
        )

    def best(self) -> Solution:
        """The candidate with the most visits, of equals the one with the highest mean."""
        best = best_child(self._root) or self._root.children[0]
        solution = self._solutions[self._root.children.index(best)]
        return selected(solution, f"{best.visits} of {self._root.visits} visits, mean value {best.mean:.3f}")

    async def _expand(self, node: Node[Dialogue]) -> list[Node[Dialogue]]:
        return expand(node, await self._player.branch(node.state, self._options.actions))

    async def _visit(self, leaf: Node[Dialogue]) -> tuple[Node[Dialogue], float]:
        """The node that is visited, the leaf or a child of it, and its value; NaN if a budget cut it off."""
        node = leaf
        if leaf.visits:
            children = await self._expand(leaf)
            if not children:  # nothing can follow, so its value is known
                return leaf, leaf.mean
            node = children[0]
        return node, await self._player.grade(await self._player.play_on(node.state, self._options.depth))

    def _tell(self, leaf: Node[Dialogue], visited: tuple[Node[Dialogue], float]) -> None:
        node, value = visited
        if math.isnan(value):
            release(leaf)
            return
        backpropagate(node, value)
        number = node.state.place[0]
        mean = self._root.children[number].mean
        self._solutions[number] = revise(self._solutions[number].but(verification_score=mean))
