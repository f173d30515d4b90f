"""Beam search over reasoning steps."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from pydantic import Field

from optillm_local.core.options import frozen_options
from optillm_local.optimizers.steps import StepSearch, Trace
from optillm_local.search import top_k


@frozen_options
class BeamSearch(StepSearch):
    """Write the answer step by step, and go on only from the best beginnings.

    It starts with `beam_width * expansion` first steps. In each round the `beam_width` best answers so far are
    kept, and each that is not finished is written on `expansion` times; equal ones count as one. All steps of a
    round are decoded together, and each is scored the moment it is written. Widths are those of Snell et al.: 16
    beams, of which a quarter is kept, and up to 40 rounds.
    """

    name: ClassVar[str] = "beam_search"
    description: ClassVar[str] = "steps of reasoning; only the best beginnings are written on"
    source: ClassVar[str] = "Snell et al., Scaling LLM Test-Time Compute Optimally, 2024"

    beam_width: int = Field(default=4, ge=1, le=256, description="answers that are kept in each round")
    expansion: int = Field(default=4, ge=1, le=256, description="next steps to try for each of them")

    @property
    def width(self) -> int:
        return self.beam_width * self.expansion

    def select(self, traces: Sequence[Trace], random: Random) -> list[Trace]:
        distinct = list({trace.text: trace for trace in traces}.values())
        best = [distinct[i] for i in top_k([one.score for one in distinct], self.beam_width)]
        return [trace for trace in best for _ in range(1 if trace.is_finished else self.expansion)]
