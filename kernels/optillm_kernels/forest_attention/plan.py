"""The work of a step on the device, in buffers that never move, so that CUDA graphs can use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from optillm_kernels.forest_attention.work import FIELDS, Work

if TYPE_CHECKING:
    from jaxtyping import Int
    from numpy.typing import NDArray
    from torch import Tensor

    from optillm_kernels.forest_attention.forest import Forest

_ALIGNED = 32  # numbers; every buffer starts at a multiple of 128 bytes


@dataclass(frozen=True)
class Capacity:
    """The most that a plan can hold.

    Attributes:
        sequences: rows of the batch.
        blocks: blocks in a block table.
        items: pieces of work of each width of tile.
        slots: partial results, each of one sequence from one slice.
    """

    sequences: int
    blocks: int
    items: int
    slots: int


class Plan:
    """A forest's work list on a device: int32 buffers of fixed size, filled anew in place.

    It holds while sequences merely grow: their last slice ends where `seq_lens` says. Launches depend on the
    capacity only, never on what the plan holds.

    Attributes:
        forest: what it was last filled with.
        heads, kv_heads: of the attention.
        tables: block tables of the forest: [sequences, blocks].
        counts: items that are wide and items that are narrow: [2].
        wide, narrow, members, starts, parts: see `Work`.
    """

    forest: Forest
    counts: Int[Tensor, " 2"]
    wide: Int[Tensor, "items fields"]
    narrow: Int[Tensor, "items fields"]
    members: Int[Tensor, " slots"]
    starts: Int[Tensor, " sequences+1"]
    parts: Int[Tensor, " slots"]
    tables: Int[Tensor, "sequences blocks"]

    def __init__(self, capacity: Capacity, heads: int, kv_heads: int, device: torch.device | str = "cpu") -> None:
        """An empty plan.

        Raises:
            ValueError: KV heads do not divide the heads.
        """
        if heads % kv_heads:
            raise ValueError(f"kv_heads={kv_heads}: must divide the {heads} heads")
        self.capacity = capacity
        self.heads = heads
        self.kv_heads = kv_heads
        shapes = {
            "counts": (2,),
            "wide": (capacity.items, FIELDS),
            "narrow": (capacity.items, FIELDS),
            "members": (capacity.slots,),
            "starts": (capacity.sequences + 1,),
            "parts": (capacity.slots,),
            "tables": (capacity.sequences, capacity.blocks),
        }
        self._places: dict[str, int] = {}
        size = 0
        for name, shape in shapes.items():
            self._places[name] = size
            size += -(-int(np.prod(shape)) // _ALIGNED) * _ALIGNED
        self._buffer = torch.zeros(size, dtype=torch.int32, device=device)
        for name, shape in shapes.items():
            place = self._places[name]
            setattr(self, name, self._buffer[place : place + int(np.prod(shape))].view(shape))

    @classmethod
    def of(
        cls,
        forest: Forest,
        *,
        heads: int,
        kv_heads: int,
        device: torch.device | str = "cpu",
        capacity: Capacity | None = None,
        slice_tokens: int | None = None,
    ) -> Plan:
        """A plan of `forest`, as large as it needs or as `capacity` says. `slice_tokens`: see `fill`."""
        work = Work.of(forest, kv_heads, heads // kv_heads, slice_tokens)
        plan = cls(capacity or _needed(forest, work), heads, kv_heads, device)
        plan._write(forest, work)
        return plan

    def fill(self, forest: Forest, slice_tokens: int | None = None) -> None:
        """Hold `forest` in place of what was held.

        Copies to the device are in its stream's order. `slice_tokens` bounds slices; without it, they are as long
        as leaves work for every program of a large GPU.

        Raises:
            ValueError: there is no room; the plan stays as it was.
        """
        self._write(forest, Work.of(forest, self.kv_heads, self.heads // self.kv_heads, slice_tokens))

    def outgrown(self, seq_lens: Sequence[int] | NDArray[Any]) -> bool:
        """Whether a last slice has become so long that `fill` with `forest.grown(...)` spreads it better."""
        return bool((np.asarray(seq_lens) > self._limits).any())

    def _write(self, forest: Forest, work: Work) -> None:
        need = _needed(forest, work)
        for name, most in vars(self.capacity).items():
            if getattr(need, name) > most:
                raise ValueError(f"capacity: {name}={most}; this forest needs {getattr(need, name)}")
        host = np.zeros(self._places["tables"], np.int32)
        # Rows beyond the batch have no slots: a padded batch gets zeros there.
        starts = np.full(self.capacity.sequences + 1, work.starts[-1], np.int32)
        starts[: len(work.starts)] = work.starts
        held = {
            "counts": np.array([len(work.wide), len(work.narrow)]),
            "wide": work.wide,
            "narrow": work.narrow,
            "members": work.members,
            "starts": starts,
            "parts": work.parts,
        }
        for name, values in held.items():
            host[self._places[name] :][: values.size] = values.reshape(-1)
        self._copy(self._buffer[: len(host)], host)
        rows, blocks = forest.tables.shape
        self._copy(self.tables[:rows, :blocks], forest.tables)
        self.forest = forest
        self._limits = work.limits

    def _copy(self, target: Tensor, values: NDArray[np.int32]) -> None:
        """Pinned memory is kept until its copy has run, so the host need not wait."""
        source = torch.from_numpy(np.ascontiguousarray(values))
        target.copy_(source.pin_memory() if target.is_cuda else source, non_blocking=True)


def _needed(forest: Forest, work: Work) -> Capacity:
    rows, blocks = forest.tables.shape
    return Capacity(rows, blocks, max(len(work.wide), len(work.narrow)), len(work.parts))
