"""Upper-confidence tree search (UCT), several leaves at a time.

A visit is: `select_leaves`, evaluate or `expand` what was selected, `backpropagate` its value. Leaves in flight
carry a virtual loss until then, so that visits may overlap.

Sources: Kocsis and Szepesvari, "Bandit Based Monte-Carlo Planning", 2006 (UCT); Chaslot, Winands and van den
Herik, "Parallel Monte-Carlo Tree Search", 2008 (virtual loss).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")

EXPLORATION = math.sqrt(2)
"""The weight of the exploration term for values in [0, 1]: 2 C_p with C_p = 1/sqrt(2) (Kocsis and Szepesvari)."""


@dataclass(eq=False, slots=True)
class Node(Generic[S]):
    """A state in the tree.

    Attributes:
        state: whatever the caller searches over; the action that led to it belongs here too.
        parent: the node it was expanded from; None for the root.
        children: in the order they were expanded, which breaks every tie.
        visits: values that were backpropagated through it.
        value_sum: their sum.
        virtual_losses: selected leaves at or below it whose value is still to come.
        in_flight: whether it is such a leaf itself.
        depth: edges from the root.
    """

    state: S
    parent: Node[S] | None = field(default=None, repr=False)
    children: list[Node[S]] = field(default_factory=list, repr=False)
    visits: int = 0
    value_sum: float = 0.0
    virtual_losses: int = 0
    in_flight: bool = False
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        self.depth = 0 if self.parent is None else self.parent.depth + 1

    @property
    def mean(self) -> float:
        """The mean value of its visits; 0 before the first."""
        return self.value_sum / self.visits if self.visits else 0.0


def expand(node: Node[S], states: Iterable[S]) -> list[Node[S]]:
    """Add a child for each of `states`; the new children, in their order."""
    born = [Node(state, node) for state in states]
    node.children += born
    return born


def uct(node: Node[S], exploration: float = EXPLORATION) -> float:
    """mean + exploration * sqrt(ln N / n), of N visits to the parent and n to the node.

    A virtual loss counts as a visit of value 0. Infinite for a node that was never visited; the mean alone for
    a root, which competes with nobody.
    """
    visits = node.visits + node.virtual_losses
    if not visits:
        return math.inf
    mean = node.value_sum / visits
    if node.parent is None:
        return mean
    return mean + exploration * math.sqrt(math.log(node.parent.visits + node.parent.virtual_losses) / visits)


def select_leaves(root: Node[S], k: int, exploration: float = EXPLORATION) -> list[Node[S]]:
    """Up to k different leaves that are not in flight, and now are; fewer where the tree has no more.

    Each is reached by always going to the child of the highest `uct`, of equals the first, among those with such
    a leaf. It puts a virtual loss on its path, so that the next goes elsewhere where that is nearly as good.
    `backpropagate` and `release` take it away again; what is expanded below it meanwhile waits until then.
    """
    leaves: list[Node[S]] = []
    while len(leaves) < k and _has_free_leaf(root):
        leaf = root
        while leaf.children:
            leaf = max(filter(_has_free_leaf, leaf.children), key=lambda child: uct(child, exploration))
        leaf.in_flight = True
        for node in _upwards(leaf):
            node.virtual_losses += 1
        leaves.append(leaf)
    return leaves


def backpropagate(node: Node[S], value: float) -> None:
    """Count a visit of `value` for the node and all above it, in place of the virtual loss on that path.

    `node` is the selected leaf or one that was expanded below it; of several children of one leaf, the first
    to report takes the virtual loss away. Raises ValueError for a value that is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"value must be a finite number, not {value}; call release for a visit that failed")
    release(node)
    for above in _upwards(node):
        above.visits += 1
        above.value_sum += value


def release(node: Node[S]) -> None:
    """Take the virtual loss off the path to the nearest leaf in flight, at `node` or above, if there is one.

    For a visit that ended without a value.
    """
    leaf = next((above for above in _upwards(node) if above.in_flight), None)
    if leaf is not None:
        leaf.in_flight = False
        for above in _upwards(leaf):
            above.virtual_losses -= 1


def best_child(node: Node[S]) -> Node[S] | None:
    """The most visited child, of equals the one of the higher mean, then the first; None without children.

    Visits are the robust choice: the mean of a rarely visited child is noise (Chaslot et al. 2008, section 2).
    """
    return max(node.children, key=lambda child: (child.visits, child.mean), default=None)


def path(node: Node[S]) -> list[Node[S]]:
    """The nodes from the root to `node`, both included."""
    return [*_upwards(node)][::-1]


def _has_free_leaf(root: Node[S]) -> bool:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not node.in_flight:
            if not node.children:
                return True
            waiting += node.children
    return False


def _upwards(node: Node[S]) -> Iterator[Node[S]]:
    above: Node[S] | None = node
    while above is not None:
        yield above
        above = above.parent
