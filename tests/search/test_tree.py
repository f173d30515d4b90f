"""Upper-confidence tree search, one leaf and many at a time."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.search import (
    Node,
    backpropagate,
    best_child,
    expand,
    path,
    release,
    select_leaves,
    uct,
)
from optillm_local.search.tree import EXPLORATION

SEEDS = st.randoms(use_true_random=False)


def tree(*values: float) -> Node[str]:
    """A root with a child for each value, visited once."""
    root = Node("root")
    for child, value in zip(expand(root, [f"child {i}" for i in range(len(values))]), values, strict=True):
        backpropagate(child, value)
    return root


def walk(root: Node[Any]) -> list[Node[Any]]:
    """Every node, parents before children."""
    return [root, *(node for child in root.children for node in walk(child))]


def first_leaf(root: Node[str], exploration: float = EXPLORATION) -> Node[str]:
    """The leaf that is selected first; it is not in flight after this."""
    [leaf] = select_leaves(root, 1, exploration)
    release(leaf)
    return leaf


def grow(random: Random, rounds: int) -> tuple[Node[int], int]:
    """A tree after some batched rounds, and the number of values that were backpropagated."""
    root, told = Node(0), 0
    for _ in range(rounds):
        for leaf in select_leaves(root, random.randint(1, 4)):
            if random.random() < 0.2:
                release(leaf)
                continue
            for child in expand(leaf, range(random.randint(0, 3))) or [leaf]:
                backpropagate(child, random.random())
                told += 1
    return root, told


def test_uct_is_the_mean_and_what_is_unexplored() -> None:
    root = tree(0.25, 0.75)
    first, second = root.children
    backpropagate(second, 0.25)
    assert (root.visits, second.visits, second.mean) == (3, 2, 0.5)
    assert uct(second, 2.0) == 0.5 + 2 * math.sqrt(math.log(3) / 2)
    assert uct(first, 0.0) == first.mean == 0.25
    assert uct(root) == root.mean


def test_the_unvisited_come_first_in_their_order() -> None:
    root = tree(1.0, 1.0)
    late = expand(root, ["late", "later"])
    assert uct(late[0]) == math.inf
    assert first_leaf(root) is late[0]
    backpropagate(late[0], 0.0)
    assert first_leaf(root) is late[1]


def test_of_equals_the_first_is_selected() -> None:
    assert first_leaf(tree(0.2, 0.7, 0.7)).state == "child 1"


def test_a_tree_without_children_is_its_own_leaf() -> None:
    root = Node("root")
    assert select_leaves(root, 3) == [root]
    assert best_child(root) is None and root.mean == 0


def test_selection_goes_down_all_the_way() -> None:
    root = tree(0.1, 0.9)
    grandchild = expand(root.children[1], ["grandchild"])[0]
    assert first_leaf(root) is grandchild
    assert (grandchild.depth, [node.depth for node in path(grandchild)]) == (2, [0, 1, 2])


def test_exploration_decides_between_the_best_and_the_least_visited() -> None:
    root = tree(0.9, 0.1)
    for _ in range(9):
        backpropagate(root.children[0], 0.9)
    assert first_leaf(root, exploration=0.1).state == "child 0"
    assert first_leaf(root, exploration=2.0).state == "child 1"


def test_a_virtual_loss_sends_the_next_elsewhere() -> None:
    root = tree(0.8, 0.7, 0.6)
    for node in root.children:
        expand(node, ["a", "b"])
    leaves = select_leaves(root, 3)
    assert [leaf.parent.state for leaf in leaves] == ["child 0", "child 1", "child 2"]
    assert (root.virtual_losses, root.children[0].virtual_losses) == (3, 1)


def test_leaves_in_flight_are_not_selected_again_however_good_they_are() -> None:
    root = tree(1.0, 0.0, 0.0)
    first = select_leaves(root, 2, exploration=0.0)
    rest = select_leaves(root, 9, exploration=0.0)
    assert [node.state for node in first + rest] == ["child 0", "child 1", "child 2"]
    assert select_leaves(root, 1) == []


def test_what_is_expanded_below_a_leaf_in_flight_waits_until_it_is_told() -> None:
    root = tree(0.5)
    [leaf] = select_leaves(root, 1)
    child, sibling = expand(leaf, ["a", "b"])
    assert select_leaves(root, 1) == []
    backpropagate(child, 1.0)
    assert select_leaves(root, 1) == [sibling]


def test_a_value_from_below_the_selected_leaf_settles_its_virtual_loss_once() -> None:
    root = tree(0.5, 0.5)
    one, other = select_leaves(root, 2)
    for child in expand(one, ["a", "b"]):
        backpropagate(child, 1.0)
    assert (root.virtual_losses, one.virtual_losses, other.virtual_losses) == (1, 0, 1)
    backpropagate(other, 0.0)
    assert (root.virtual_losses, root.visits, root.value_sum) == (0, 5, 3.0)


def test_a_visit_that_failed_leaves_no_trace() -> None:
    root = tree(0.5, 0.4)
    before = [(node.visits, node.value_sum, node.virtual_losses) for node in walk(root)]
    for leaf in select_leaves(root, 2):
        release(leaf)
        release(leaf)
    assert [(node.visits, node.value_sum, node.virtual_losses) for node in walk(root)] == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_refused_and_changes_nothing(bad: float) -> None:
    root = tree(0.5)
    with pytest.raises(ValueError, match="value must be a finite number"):
        backpropagate(root.children[0], bad)
    assert root.visits == 1


def test_the_best_child_is_the_most_visited_then_the_better_then_the_first() -> None:
    root = tree(0.1, 0.9, 0.4, 0.4)
    assert best_child(root) is root.children[1]
    backpropagate(root.children[3], 0.0)
    assert best_child(root) is root.children[3]
    assert best_child(tree(0.4, 0.4)).state == "child 0"


@given(SEEDS, st.integers(0, 20))
def test_visits_are_the_values_told_and_no_virtual_loss_remains(random: Random, rounds: int) -> None:
    root, told = grow(random, rounds)
    assert root.visits == told
    assert all(not node.virtual_losses and not node.in_flight for node in walk(root))
    assert all(node.visits >= sum(child.visits for child in node.children) for node in walk(root))


@given(SEEDS, st.integers(0, 20), st.integers(0, 12))
def test_a_batch_is_different_leaves_as_many_as_there_are(random: Random, rounds: int, k: int) -> None:
    root, _ = grow(random, rounds)
    leaves = [node for node in walk(root) if not node.children]
    batch = select_leaves(root, k)
    assert len({id(leaf) for leaf in batch}) == len(batch) == min(k, len(leaves))
    assert all(
        node.virtual_losses == sum(below.in_flight for below in walk(node))
        for leaf in batch
        for node in path(leaf)
    )


def test_search_finds_the_best_arm() -> None:
    random = Random(0)
    root = Node(None)
    expand(root, [0.3, 0.5, 0.8])
    for _ in range(100):
        for leaf in select_leaves(root, 2):
            backpropagate(leaf, float(random.random() < leaf.state))
    assert best_child(root).state == 0.8
