"""Search and selection over states, scores and comparisons, whatever they stand for.

`tree` is upper-confidence tree search, `select` chooses by weights, votes and comparisons, `diversity` tells texts
apart. Nothing here asks a model or waits: a caller asks what is next, gets all the values at the same time, and
tells them. Everything is deterministic; what draws takes its own `random.Random`.
"""

from optillm_local.search.diversity import dedupe, word_overlap
from optillm_local.search.select import (
    effective_sample_size,
    is_settled,
    majority_confidence,
    pairs,
    pairs_with,
    pivots,
    ring,
    softmax,
    standings,
    systematic_resample,
    top_k,
)
from optillm_local.search.tree import (
    Node,
    backpropagate,
    best_child,
    expand,
    path,
    release,
    select_leaf,
    select_leaves,
    uct,
    walk,
)

__all__ = [
    "Node",
    "backpropagate",
    "best_child",
    "dedupe",
    "effective_sample_size",
    "expand",
    "is_settled",
    "majority_confidence",
    "pairs",
    "pairs_with",
    "path",
    "pivots",
    "release",
    "ring",
    "select_leaf",
    "select_leaves",
    "softmax",
    "standings",
    "systematic_resample",
    "top_k",
    "uct",
    "walk",
    "word_overlap",
]
