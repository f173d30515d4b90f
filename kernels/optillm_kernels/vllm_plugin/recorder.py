"""Measures logits of a step, writes down what it finds, and ends sequences that have become too unsure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from optillm_kernels.uncertainty import ConfidenceWindow, Uncertainty, measure
from optillm_kernels.vllm_plugin.arena import SPARE, attached

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

KEY = "optillm_statistics"
"""Under which a request's `extra_args` have what is asked."""

LONGEST_WINDOW = 2048
"""Tokens of the longest group a floor can be kept over (DeepConf's)."""


@dataclass(frozen=True)
class Ask:
    """What a request wants to know.

    Attributes:
        path: the arena to write to.
        first: its row of the first token.
        rows: how many rows the request owns.
        k: alternatives to measure over.
        threshold: confidence below which the sequence is ended; NaN never.
        window: tokens of a group that is compared with it.
        end: the token that ends a sequence; below 0 where the model has none, and then nothing is ended.
    """

    path: str
    first: int
    rows: int
    k: int
    threshold: float = math.nan
    window: int = 1
    end: int = -1

    def packed(self) -> dict[str, Any]:
        """As `extra_args`, which travel to the engine's process; NaN does not travel well."""
        floor = None if math.isnan(self.threshold) else self.threshold
        return {KEY: [self.path, self.first, self.rows, self.k, floor, self.window, self.end]}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Self | None:
        """What a request asks; None if it asks nothing."""
        if not extra_args or KEY not in extra_args:
            return None
        path, first, rows, k, floor, window, end = extra_args[KEY]
        return cls(path, first, rows, k, math.nan if floor is None else floor, window, end)

    @property
    def has_floor(self) -> bool:
        """Whether the sequence may be ended here; otherwise who asks has to."""
        return self.end >= 0 and self.window <= LONGEST_WINDOW and not math.isnan(self.threshold)


class Recorder:
    """Per-slot state of the requests that ask, on the logits' device. Nothing here waits for the device.

    Args:
        slots: requests that may run at once; one more slot takes what belongs to nobody.
        device: of the logits.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._nobody = slots
        self._device = device
        self._first = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self._rows = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self._end = torch.full((slots + 1,), -1, dtype=torch.int64, device=device)
        self._window = ConfidenceWindow(slots + 1, LONGEST_WINDOW, device)
        self._floors: set[int] = set()
        self._asks: dict[int, Ask] = {}
        self._arenas: dict[str, Tensor] = {}
        self._memory: list[Tensor] = []  # of the arenas: a device's view does not keep it mapped

    def admit(self, slot: int, ask: Ask) -> None:
        """A request takes a slot; whatever its last owner left there is gone."""
        self._asks[slot] = ask
        self._first[slot], self._rows[slot] = ask.first, ask.rows
        self._end[slot] = ask.end if ask.has_floor else -1
        self._floors.discard(slot)
        if ask.has_floor:
            self._floors.add(slot)
            self.restart(slot)

    def restart(self, slot: int) -> None:
        """Forget the confidences of a slot's sequence: a floor is kept over the tokens from here on."""
        if slot in self._floors:
            ask = self._asks[slot]
            # Float32 must not ask for more: a sequence may be exactly as sure as its floor.
            threshold = torch.tensor([ask.threshold]).nextafter(torch.tensor(-math.inf))
            self._window.reset(self.moved([slot]), self.moved([ask.window]), self.moved(threshold))

    def moved(self, values: list[int] | Tensor) -> Tensor:
        """On the logits' device, without waiting for it."""
        there = torch.as_tensor(values)
        if self._device.type == "cpu":
            return there
        return there.pin_memory().to(self._device, non_blocking=True)

    def record(
        self,
        logits: Float[Tensor, "batch vocab"],
        rows: list[int],
        slots: list[int],
        positions: Int[Tensor, " batch"],
    ) -> None:
        """Measure rows of the logits, write to their arenas, and mask what is to end to its end.

        Args:
            logits: of the whole batch, changed in place.
            rows: those whose requests ask.
            slots: of these requests.
            positions: index of the token that each row of the batch is about to draw; below 0 or beyond the
                request's rows, it draws none that counts.
        """
        groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        for index, slot in enumerate(slots):
            groups[self._asks[slot].k, self._asks[slot].path].append(index)
        for (k, path), these in groups.items():
            arena = self._arena(path)
            self._record(logits, [rows[i] for i in these], [slots[i] for i in these], positions, k, arena)

    def _record(
        self,
        logits: Float[Tensor, "batch vocab"],
        batch_rows: list[int],
        slots: list[int],
        positions: Int[Tensor, " batch"],
        k: int,
        arena: Float[Tensor, "arena columns"],
    ) -> None:
        rows, owner = self.moved(batch_rows), self.moved(slots)
        found = measure(logits if batch_rows == list(range(len(logits))) else logits[rows], k)
        drawn = positions[rows]
        counts = (drawn >= 0) & (drawn < self._rows[owner])
        ended = self._ended(found, owner, counts) if self._floors.intersection(slots) else None
        target = torch.where(counts, self._first[owner] + drawn, SPARE)
        arena.index_copy_(0, target, _columns(found, ended))
        if ended is not None:
            self._end_rows(logits, rows, owner, ended)

    def _arena(self, path: str) -> Float[Tensor, "arena columns"]:
        if path not in self._arenas:
            self._memory.append(torch.from_numpy(attached(path)))
            self._arenas[path] = _on_device(self._memory[-1], self._device)
        return self._arenas[path]

    def _ended(
        self, found: Uncertainty, owner: Int[Tensor, " rows"], counts: Bool[Tensor, " rows"]
    ) -> Bool[Tensor, " rows"]:
        watched = counts & (self._end[owner] >= 0)
        seen = self._window.push(torch.where(watched, owner, self._nobody), found.confidence)
        return seen.below & watched

    def _end_rows(
        self,
        logits: Float[Tensor, "batch vocab"],
        rows: Int[Tensor, " rows"],
        owner: Int[Tensor, " rows"],
        ended: Bool[Tensor, " rows"],
    ) -> None:
        """Leave these rows no token but their end."""
        kept = logits[rows]
        only = torch.full_like(kept, -math.inf)
        only.scatter_(1, self._end[owner].clamp(min=0)[:, None], 0.0)
        logits[rows] = torch.where(ended[:, None], only, kept)


def _columns(found: Uncertainty, ended: Bool[Tensor, " rows"] | None) -> Float[Tensor, "rows columns"]:
    """As the arena has them."""
    flag = torch.zeros_like(found.confidence) if ended is None else ended.to(found.confidence.dtype)
    return torch.stack(
        [
            found.confidence,
            found.margin,
            *found.listed(),
            found.entropy,
            found.varentropy,
            found.self_certainty,
            flag,
        ],
        dim=1,
    ).float()


def _on_device(memory: Tensor, device: torch.device) -> Tensor:
    """The same memory, as the device sees it: what is written there is here when the step is over."""
    if device.type == "cpu":
        return memory
    from vllm.utils.torch_utils import get_accelerator_view_from_cpu_tensor

    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    status = int(runtime.cudaHostRegister(memory.data_ptr(), memory.numel() * memory.element_size(), 0))
    if status:
        raise RuntimeError(f"the arena cannot be mapped into the GPU's memory: CUDA error {status}")
    view: Tensor = get_accelerator_view_from_cpu_tensor(memory)
    return view
