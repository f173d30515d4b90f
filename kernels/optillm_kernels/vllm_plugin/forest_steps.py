"""When a decode step goes through the forest, and what it saves. Shared by the backends; imports no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from optillm_kernels.forest_attention import Forest
from optillm_kernels.forest_attention.forest import WORTH
from optillm_kernels.vllm_plugin.forest_two_pass import Run, best_cut

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

KEY = "optillm_forest"
"""Where vLLM's `additional_config` holds the options; without this key everything is vLLM's own."""


@dataclass(frozen=True)
class Options:
    """What `additional_config["optillm_forest"]` may say.

    Attributes:
        min_saved_tokens: a step goes through the forest when it reads at least so many KV tokens fewer; None: the
            rule of `forest_attention.pays`.
        route: on a GPU, `two_pass` (attention calls that vLLM ships) or `triton` (the forest kernel).
    """

    min_saved_tokens: int | None = None
    route: Literal["two_pass", "triton"] = "two_pass"

    @classmethod
    def of(cls, additional_config: Any) -> Options | None:
        """The options, or None where nobody asked for the forest.

        Raises:
            ValueError: an unknown name or route.
        """
        if not isinstance(additional_config, Mapping) or KEY not in additional_config:
            return None
        given = dict(additional_config[KEY] or {})
        if unknown := given.keys() - asdict(cls()).keys():
            raise ValueError(f"{KEY}: unknown {sorted(unknown)}; known are {sorted(asdict(cls()))}")
        if given.get("route", "two_pass") not in ("two_pass", "triton"):
            raise ValueError(f"{KEY}: route={given['route']!r}; must be two_pass or triton")
        return cls(**given)


@dataclass
class Statistics:
    """What the backends of this process did. One step counts once, however many layers it has.

    Attributes:
        forest_steps: steps that went through the forest.
        stock_steps: steps, decoding or not, that were left to vLLM's attention.
        plans: how often the forest was made anew, because who is in the batch changed.
        tokens_read, tokens_stock: KV tokens per layer and KV head that the forest's steps read, and what vLLM's
            attention would have read in their place.
    """

    forest_steps: int = 0
    stock_steps: int = 0
    plans: int = 0
    tokens_read: int = 0
    tokens_stock: int = 0


statistics = Statistics()
"""Of this process; an engine in a process of its own counts there."""


@dataclass(frozen=True)
class Grove:
    """The forest of the sequences in a batch, until one joins or leaves.

    Attributes:
        forest: made from the block tables as they were when the batch took this shape.
        runs: for two passes, its best cut.
        saved: KV tokens that each of its steps need not read again.
    """

    forest: Forest
    runs: list[Run]
    saved: int


@dataclass(kw_only=True)
class Step:
    """A step through the forest, whose sequences have `tokens` tokens together. Its first layer counts it."""

    grove: Grove
    tokens: int
    counted: bool = False

    def count(self) -> None:
        """Add it to the statistics, once."""
        if self.counted:
            return
        self.counted = True
        statistics.forest_steps += 1
        statistics.tokens_stock += self.tokens
        statistics.tokens_read += self.tokens - self.grove.saved


class Planner:
    """Makes the forest anew when a sequence joins or leaves; sequences that merely grow keep theirs.

    That is exact: a forest says which blocks are shared, blocks of a running sequence never change, and what is
    appended belongs to one sequence.

    Args:
        kv_heads: with them grows what a saved token is worth.
        one_level: whether the steps go in two passes.
    """

    def __init__(self, options: Options, block_size: int, kv_heads: int, *, one_level: bool) -> None:
        asked = options.min_saved_tokens
        self.least: int = WORTH * 8 // kv_heads + 1 if asked is None else max(asked, 1)
        self.block_size = block_size
        self.one_level = one_level
        self._grove: Grove | None = None

    def pays(self, grove: Grove) -> bool:
        """Whether the steps of `grove` are to go through the forest."""
        return grove.saved >= self.least

    def grown(self, tables: Int[Tensor, "rows blocks"], lengths: Int[Tensor, " rows"]) -> Grove | None:
        """The forest so far, if these are the same sequences with tokens added. All on the host."""
        if self._grove is None or len(lengths) != len(self._lengths) or bool((lengths < self._lengths).any()):
            return None
        width = self._tables.shape[1]
        held = torch.arange(width) * self.block_size < self._lengths[:, None]
        same = tables[:, :width] == self._tables
        return self._grove if bool((same | ~held).all()) else None

    def planted(self, tables: Int[Tensor, "rows blocks"], lengths: Int[Tensor, " rows"]) -> Grove:
        """A new forest of these sequences. All on the host."""
        width = -(-int(lengths.max()) // self.block_size)
        self._tables, self._lengths = tables[:, :width].clone(), lengths.clone()
        forest = Forest.of(self._tables, lengths.tolist(), self.block_size)
        runs, saved = best_cut(forest) if self.one_level else ([], forest.shared_tokens_saved)
        statistics.plans += 1
        self._grove = Grove(forest, runs, saved)
        return self._grove
