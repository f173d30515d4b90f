"""Monte-Carlo tree search over rewritings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from optillm_local.core.concurrency import each
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.aggregation.base import Aggregator
from optillm_local.optimizers.mars.improvement import rewritten
from optillm_local.optimizers.mars.workspace import Draft

EXPLORATION = math.sqrt(2)


class MonteCarloTreeSearch(Aggregator):
    """Solutions are nodes, rewritings their children, P(CORRECT) is the value of a node.

    In each of `aggregation_loops` turns, `aggregation_selection_size` leaves are chosen and expanded together:
    each choice counts as a visit without value until its own is known, so that the next one goes elsewhere
    (virtual loss; Chaslot et al., "Parallel Monte-Carlo Tree Search", 2008). Nodes are chosen by UCT (Kocsis and
    Szepesvári, 2006). The node with the best value of its own is the result.
    """

    name = "mcts"
    needs_verdicts = True

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        root = _Node(None)
        for draft in pool:
            verdicts = team.workspace.verifications(draft.id)
            value = sum(one.probability for one in verdicts) / len(verdicts) if verdicts else 0.0
            root.child(draft).backup(value)
        for turn in range(team.config.aggregation_loops):
            leaves = [root.select() for _ in range(team.config.aggregation_selection_size)]

            async def expand(job: tuple[int, _Node], turn: int = turn) -> None:
                await _expand(job[1], team, f"mcts-{turn + 1}.{job[0]}")

            await each(expand, enumerate(leaves))
        best = max(root.all_below(), key=lambda node: node.value)
        return [best.draft] if best.draft else []


async def _expand(node: _Node, team: Team, solution_id: str) -> None:
    parent = node.draft
    assert parent  # noqa: S101 - only the root has none, and it is never a leaf: pools are not empty
    others = team.others(parent.author)
    writer = others[len(node.children) % len(others)]
    made = await team.attempt(rewritten(parent, team, writer, "aggregate", solution_id=solution_id))
    verdict = await team.attempt(team.read(team.others(made.author)[0], made)) if made else None
    node.give_back()
    if verdict:
        team.record(verdict)
    if made:
        node.child(made).backup(verdict.probability if verdict else 0.0)


@dataclass
class _Node:
    draft: Draft | None
    parent: _Node | None = None
    children: list[_Node] = field(default_factory=list)
    value: float = -1.0  # its own
    total: float = 0.0
    visits: int = 0

    def child(self, draft: Draft) -> _Node:
        self.children.append(_Node(draft, self))
        return self.children[-1]

    def select(self) -> _Node:
        """The leaf, or the node with room for another child, where UCT leads; visited without value for now."""
        self.visits += 1
        rivals = [(child.uct(self.visits), -place, child) for place, child in enumerate(self.children)]
        best = max(rivals, key=lambda rival: rival[:2], default=None)
        if self.draft and (best is None or self.uct(self.visits) >= best[0]):
            return self
        assert best  # noqa: S101 - see above
        return best[2].select()

    def uct(self, above: int) -> float:
        visits = max(1, self.visits)
        return self.total / visits + EXPLORATION * math.sqrt(math.log(max(1, above)) / visits)

    def backup(self, value: float) -> None:
        self.value = value
        node: _Node | None = self
        while node:
            node.visits, node.total, node = node.visits + 1, node.total + value, node.parent

    def give_back(self) -> None:
        """Take the virtual visit back: the child's own is about to be counted."""
        node: _Node | None = self
        while node:
            node.visits, node = node.visits - 1, node.parent

    def all_below(self) -> list[_Node]:
        return [node for child in self.children for node in (child, *child.all_below())]
