"""Phase 3: make more of the solutions there are. One small protocol, many strategies, chosen by name.

```python
@register_aggregator
class Shortest(Aggregator):
    name = "shortest"
    needs_verdicts = False

    async def aggregate(self, pool: Sequence[Draft], team: Team) -> list[Draft]:
        return [min(pool, key=lambda draft: len(draft.solution.reasoning))]
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

from optillm_local.core.errors import did_you_mean
from optillm_local.optimizers.mars.aggregation.base import Aggregator

__all__ = ["Aggregator", "find", "names", "register_aggregator"]

_BUILT_IN = {
    "rsa": "recursive:RecursiveSelfAggregation",
    "majority": "voting:Majority",
    "weighted_majority": "voting:WeightedMajority",
    "best_of_n": "voting:BestOfN",
    "mixture_of_experts": "mixtures:MixtureOfExperts",
    "mixture_of_agents": "mixtures:MixtureOfAgents",
    "mcts": "tree:MonteCarloTreeSearch",
}
_registered: dict[str, type[Aggregator]] = {}

T = TypeVar("T", bound=type[Aggregator])


def register_aggregator(kind: T) -> T:
    """Class decorator: makes a strategy of this program known by its `name`."""
    _registered[kind.name] = kind
    return kind


def names() -> list[str]:
    """Every known name, sorted."""
    return sorted({*_BUILT_IN, *_registered})


def find(name: str) -> type[Aggregator]:
    """The strategy of that name.

    Raises:
        KeyError: there is none.
    """
    if name in _registered:
        return _registered[name]
    if name not in _BUILT_IN:
        raise KeyError(f"{name}: {did_you_mean(name, names())}")
    module, _, attribute = _BUILT_IN[name].partition(":")
    found: type[Aggregator] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found
