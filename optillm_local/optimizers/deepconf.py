"""Deep think with confidence: many traces, of which the confident ones vote and the others are ended early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from statistics import median
from typing import ClassVar, Literal

from pydantic import Field

from optillm_local.confidence.measures import (
    KEEP_HIGH,
    KEEP_LOW,
    WINDOW,
    GroupConfidence,
    confidence_threshold,
    lowest_group,
    token_confidence,
    window_for,
)
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.generation import AT_THE_END, NOW_AND_THEN
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.core.statistics import Floor
from optillm_local.optimizers.voting import Poll, consensus, never

KEEP = {"low": KEEP_LOW, "high": KEEP_HIGH}

_UNSURE = "aborted below the confidence threshold"
_HEAVIEST = 100.0
"""Nats. A trace with an infinite confidence (an alternative of probability 0) weighs that."""

_ROUNDED = 1 - 1e-9
"""A trace that is as sure as the threshold must not fall below it by rounding."""


@frozen_options
class DeepConf(Optimizer):
    """Sample traces, let the confident ones vote, each with its confidence.

    The confidence of a trace is that of its least confident group of tokens. `offline`, all traces are written to
    their end and the surest 10 % (low) or 90 % (high) vote. `online`, a few traces are written first, and what a
    share of 10 % or 90 % of them reach, each further trace must keep up: all start together, and one that falls
    below is aborted mid-token and has no vote. Once 95 % of the vote is for one answer, the rest is aborted too;
    otherwise only traces that reach the threshold elect the answer.

    A group is 2048 tokens as in the paper, or a quarter of a typical trace of this question if that is less:
    otherwise traces shorter than a group would never end early. codelion's optillm does not scale it, and so ends
    hardly any; it writes one trace after the other, compares groups with a threshold of averages, lets aborted
    traces vote, and computes confidence of 5 alternatives where the paper's program takes 20.
    """

    name: ClassVar[str] = "deepconf"
    description: ClassVar[str] = "many traces; unsure ones end mid-token, the others vote by their confidence"
    source: ClassVar[str] = "Fu et al., Deep Think with Confidence, 2025; optillm deepconf"

    mode: Literal["online", "offline"] = Field(
        default="online", description="end unsure traces early, or write all and filter"
    )
    variant: Literal["low", "high"] = Field(
        default="low", description="keep as sure a share of traces as 10 % (low) or 90 % (high)"
    )
    warmup: int = Field(default=16, ge=1, le=4096, description="online: traces that set the threshold")
    max_traces: int = Field(default=128, ge=1, le=4096, description="traces in all, those of the warm-up included")
    consensus: float = Field(
        default=0.95, gt=0, le=1, description="online: share of the vote at which the rest is aborted"
    )
    window: int = Field(default=WINDOW, ge=1, description="tokens of a group, where traces are long enough")
    top_k: int = Field(default=20, ge=2, le=20, description="alternatives per token that make its confidence")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query, statistics=self.top_k)
        traces = prompt.fan(self.max_traces)
        first = min(self.warmup, self.max_traces) if self.mode == "online" else self.max_traces
        poll = Poll(self.max_traces, rule=never)
        with span("warm-up" if self.mode == "online" else "generate"):
            async with client.generate(traces[:first], report_every=AT_THE_END) as group:
                await poll.hear(group)
        window = window_for(_typical_length(poll), self.window)
        poll.weigh = partial(_weight, window=window)
        poll.reweigh(lambda one: poll.weigh(one.path))
        threshold = _ROUNDED * confidence_threshold([one.weight for one in poll.ballots], KEEP[self.variant])
        if traces[first:]:
            with span("generate"), suppress(BudgetExceeded):  # then the warm-up elects
                await self._go_on(poll, traces[first:], client, window, threshold)
        if not poll.stopped:
            poll.reweigh(lambda one: 0.0 if one.weight < threshold else one.weight)
        return await poll.elect(prompt.sampling.temperature)

    async def _go_on(
        self, poll: Poll, traces: Sequence[Prompt], client: ModelClient, window: int, threshold: float
    ) -> None:
        """Count further traces as they finish, and end those that fall below the threshold meanwhile."""
        poll.rule = consensus(self.consensus)
        poll.stopped = poll.rule(poll.tally(), poll.outstanding)
        if poll.stopped:
            return
        written = [GroupConfidence(window) for _ in traces]
        floor = None if math.isnan(threshold) else Floor(threshold, window)
        watched = [trace.but(floor=floor) for trace in traces]
        async with client.generate(watched, report_every=NOW_AND_THEN) as group:
            async for index, event in group:
                if isinstance(event, Completed):
                    dismissed = _UNSURE if written[index].is_below(threshold) else ""
                    if await poll.add(self.max_traces - len(traces) + index, event.completion, dismissed):
                        group.stop(because=poll.stopped)
                    continue
                written[index].add(token_confidence(event))
                if written[index].is_below(threshold):
                    lowest = written[index].lowest
                    group.stop(index, because=f"confidence {lowest:.2f} is below {threshold:.2f}")


def _typical_length(poll: Poll) -> int:
    """Tokens; 0 where nothing was written to its end."""
    return int(median([len(one.path.token_ids) for one in poll.ballots] or [0]))


def _weight(path: Completion, window: int) -> float:
    """The least confidence of a group of tokens; 1 where it is unknown."""
    lowest = lowest_group(token_confidence(path), window)
    return 1.0 if math.isnan(lowest) else min(max(lowest, 0.0), _HEAVIEST)
