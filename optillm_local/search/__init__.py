"""Search and selection over states, scores and comparisons, whatever they stand for.

`tree` is upper-confidence tree search, `select` chooses by weights, votes and comparisons, `diversity` tells texts
apart. Nothing here asks a model or waits: a caller asks what is next, finds its value, and tells it. Everything is
deterministic; what draws takes its own `random.Random`.
"""

from optillm_local.search.diversity import word_overlap
from optillm_local.search.select import (
    effective_sample_size,
    is_settled,
    majority_confidence,
    pairs,
    pivots,
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
    select_leaves,
    uct,
)

__all__ = [
    "Node",
    "backpropagate",
    "best_child",
    "effective_sample_size",
    "expand",
    "is_settled",
    "majority_confidence",
    "pairs",
    "path",
    "pivots",
    "release",
    "select_leaves",
    "softmax",
    "standings",
    "systematic_resample",
    "top_k",
    "uct",
    "word_overlap",
]
