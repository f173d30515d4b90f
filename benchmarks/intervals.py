"""95 % confidence intervals of what benchmarks state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]

Z = 1.96
"""Normal quantile of a 95 % interval."""

DRAWS = 5000
"""Bootstrap samples."""


def wilson(right: int, of: int) -> Interval:
    """Of a share. Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927."""
    share, scale = right / of, 1 + Z**2 / of
    middle = (share + Z**2 / (2 * of)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / of + Z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def of_mean(values: Sequence[float], seed: int) -> Interval:
    """Of a mean, by the percentile bootstrap; of paired differences, that is the paired bootstrap."""
    return of_ratio(values, [1.0] * len(values), seed)


def of_ratio(over: Sequence[float], under: Sequence[float], seed: int) -> Interval:
    """Of sum(over) / sum(under), where both come in pairs, by the percentile bootstrap over the pairs."""
    drawn = np.random.default_rng(seed).integers(len(over), size=(DRAWS, len(over)))
    ratios = np.asarray(over, float)[drawn].sum(axis=1) / np.asarray(under, float)[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
