"""Particle filtering over reasoning steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import ClassVar

from pydantic import Field

from optillm_local.core.options import frozen_options
from optillm_local.optimizers.steps import StepSearch, Trace
from optillm_local.search import effective_sample_size, softmax, systematic_resample

_SURE = 1e-6
"""How near to 0 and 1 a probability may come, so that no particle outweighs all others for ever."""


@frozen_options
class ParticleFiltering(StepSearch):
    """Write n answers step by step; after each step, good beginnings multiply and bad ones die out.

    Sequential Monte Carlo: a particle is an answer so far. Its weight is multiplied by the odds p / (1 - p) of its
    score, the exponential of the logit that a process reward model gives; a score that is measured on tokens, and
    is no probability, is taken as the logit itself. Particles are drawn again in proportion to their weights
    (systematic resampling), which makes the weights equal. A weak beginning lives on with some probability, which
    helps where scores are wrong. Resampling in every round is the paper's, which draws each particle by itself.
    """

    name: ClassVar[str] = "particle_filtering"
    description: ClassVar[str] = "steps of reasoning; beginnings are resampled by their scores"
    source: ClassVar[str] = "Puri et al., A Probabilistic Inference Approach to Inference-Time Scaling, 2025"

    n: int = Field(default=8, ge=1, le=4096, description="particles")
    resample_below: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of n under which the effective sample size calls for resampling",
    )
    weight_temperature: float = Field(
        default=1.0, gt=0, description="divides the logarithm of the weights; low: the best take over"
    )

    @property
    def width(self) -> int:
        return self.n

    def select(self, traces: Sequence[Trace], random: Random) -> list[Trace]:
        weighed = [replace(trace, log_weight=trace.log_weight + self._logit(trace.score)) for trace in traces]
        weights = softmax([trace.log_weight for trace in weighed], self.weight_temperature)
        if effective_sample_size(weights) >= self.resample_below * self.n:
            return weighed
        return [replace(traces[i], log_weight=0.0) for i in systematic_resample(weights, self.n, random)]

    def _logit(self, score: float) -> float:
        if self.scorer.is_measured:
            return score
        p = min(max(score, _SURE), 1 - _SURE)
        return math.log(p / (1 - p))
