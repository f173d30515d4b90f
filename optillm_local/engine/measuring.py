"""Asks the engine to measure how sure the model is of each token, and reads what it measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optillm_kernels.vllm_plugin.arena import Arena

from optillm_local.core.prompt import Sampling
from optillm_local.core.statistics import COLUMNS, TokenStatistics

if TYPE_CHECKING:
    from optillm_kernels.vllm_plugin.recorder import Ask

V1, V2 = (f"optillm_kernels.vllm_plugin.logits_{runner}:RecordingProcessor" for runner in ("v1", "v2"))
"""The logits processor that measures, for either model runner of vLLM."""


@dataclass(slots=True)
class Tape:
    """The statistics of one sequence, which the engine writes and we read as its tokens arrive."""

    arena: Arena
    ask: Ask
    read: int = field(default=0, init=False)
    is_ended: bool = field(default=False, init=False)

    def next(self, tokens: int) -> TokenStatistics:
        """Of the next tokens."""
        first = self.ask.first + self.read
        rows = self.arena.values[first : first + tokens]
        self.read += tokens
        self.is_ended = bool(rows[-1, -1])
        return TokenStatistics(rows[:, : len(COLUMNS)].copy())

    def close(self) -> None:
        """The sequence is over: others may have its rows."""
        self.arena.give_back(self.ask.first, self.ask.rows)


class Measuring:
    """Makes tapes for sequences that want to be measured.

    Args:
        max_model_len: tokens of prompt and answer together.
        end: the token that ends a sequence; None if the model has none.
    """

    def __init__(self, max_model_len: int, end: int | None) -> None:
        self._arena = Arena()
        self._max_model_len, self._end = max_model_len, -1 if end is None else end

    def tape(self, sampling: Sampling, prompt_tokens: int) -> Tape | None:
        """For one sequence; None if it does not ask, or if it must list alternatives instead.

        Penalties, biases and formats change the logits before they can be measured, and there may be no room for
        so many tokens.
        """
        if sampling.statistics is None or sampling.reshapes:
            return None
        from optillm_kernels.vllm_plugin.recorder import Ask

        rows = min(sampling.max_tokens, self._max_model_len - prompt_tokens)
        first = self._arena.take(rows)
        if first is None:
            return None
        floor = sampling.floor
        threshold, window = (math.nan, 1) if floor is None else (floor.confidence, floor.window)
        ask = Ask(self._arena.path, first, rows, sampling.statistics, threshold, window, self._end)
        return Tape(self._arena, ask)

    def close(self) -> None:
        """Let go of the memory."""
        self._arena.close()
