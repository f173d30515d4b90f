"""Choosing by scores, weights, votes and comparisons.

Comparisons: candidates are numbered 0 to n - 1, and a comparison is the pair (i, j), i being shown first. All of
them are independent of one another; a caller that swaps the places asks (j, i) as well and reports both. A pivot
tournament ("LLM-as-a-Verifier", 2026) compares everybody with a few pivots. There a first round chooses these;
here they are set beforehand, so that one round does.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, combinations
from random import Random

Pair = tuple[int, int]

SETTLED = 0.95
"""Confidence at which sampling more votes ends (Aggarwal et al. 2023, the default of their Beta criterion)."""


def majority_confidence(counts: Iterable[int]) -> float:
    """P(the leading answer stays ahead of the second), from the votes for each answer so far.

    Of v1 votes for the first and v2 for the second, the first's share of the two is Beta(v1 + 1, v2 + 1)
    distributed, and this is the probability that it exceeds 1/2: 1 - sum_{i <= v2} C(v1 + v2 + 1, i) /
    2^(v1 + v2 + 1). Exactly 1/2 for a tie and without votes. Source: Aggarwal et al., "Let's Sample Step by
    Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs", 2023, section 3 (Beta criterion).

    Raises ValueError for a negative count.
    """
    votes = list(counts)
    if min(votes, default=0) < 0:
        raise ValueError(f"counts must be >= 0, not {min(votes)}")
    first, second = heapq.nlargest(2, [*votes, 0, 0])
    flips = first + second + 1
    return float(1 - Fraction(sum(math.comb(flips, heads) for heads in range(second + 1)), 2**flips))


def is_settled(counts: Iterable[int], threshold: float = SETTLED) -> bool:
    """Whether `majority_confidence` has reached `threshold`; at 0.95 first with 4 votes to 0, 6 to 1, 8 to 2."""
    return majority_confidence(counts) >= threshold


def softmax(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Weights proportional to exp(score / temperature), which add up to 1.

    A score of -inf or NaN weighs nothing, unless all do: then they weigh the same. Raises ValueError for a
    temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    known = [-math.inf if math.isnan(score) else score for score in scores]
    peak = max(known, default=0.0)
    weights = [1.0 if score == peak else math.exp((score - peak) / temperature) for score in known]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def systematic_resample(weights: Sequence[float], n: int, random: Random) -> list[int]:
    """n indices, in ascending order, each as often as its share of the weights: n * share, rounded up or down.

    One draw moves a comb of n equally spaced teeth over the cumulative weights, so that the expected count is
    n * share. Weights that are all 0 count as equal. Source: Kitagawa, "Monte Carlo Filter and Smoother for
    Non-Gaussian Nonlinear State Space Models", 1996; Douc and Cappe, "Comparison of Resampling Schemes for
    Particle Filtering", 2005, section 2.4.

    Raises ValueError for no weights and for one that is negative or not finite.
    """
    # Rationals, because rounded sums would give one of several equal weights a tooth more than the others.
    shares = [Fraction(weight) for weight in _weighed(weights)]
    total = sum(shares)
    if not total:
        shares, total = [Fraction(1)] * len(shares), Fraction(len(shares))
    offset = Fraction(random.random())
    drawn: list[int] = []
    for index, bound in enumerate(accumulate(shares)):
        while (len(drawn) + offset) * total < n * bound:
            drawn.append(index)
    return drawn


def effective_sample_size(weights: Sequence[float]) -> float:
    """(sum w)^2 / sum w^2: as many equal weights would be worth as much; from 1 to their number, 0 for no weight.

    Source: Kish, "Survey Sampling", 1965; Liu and Chen, "Sequential Monte Carlo Methods for Dynamic Systems",
    1998. Particle filters resample below half the number of particles. Raises like `systematic_resample`.
    """
    peak = max(_weighed(weights))
    if not peak:
        return 0.0
    shares = [weight / peak for weight in weights]
    return math.fsum(shares) ** 2 / math.fsum(share * share for share in shares)


def top_k(scores: Sequence[float], k: int) -> list[int]:
    """Indices of the k highest scores, best first, of equals the first; NaN comes after every number."""
    known = [(not math.isnan(score), score) for score in scores]
    return heapq.nlargest(k, range(len(scores)), key=lambda index: known[index])


def pivots(n: int, k: int) -> list[int]:
    """k of n indices, evenly spread; all of them for k >= n."""
    k = max(0, min(k, n))
    return [(2 * at + 1) * n // (2 * k) for at in range(k)]


def pairs(n: int, k: int) -> list[Pair]:
    """The comparisons of everybody with k `pivots`, in one round: k(n - k) + k(k - 1)/2 pairs (i, j), i < j.

    From k = n - 1 on it is the full round-robin, n(n - 1)/2.
    """
    chosen = set(pivots(n, k))
    return [pair for pair in combinations(range(n), 2) if not chosen.isdisjoint(pair)]


def standings(n: int, results: Mapping[Pair, float]) -> list[float]:
    """Each candidate's mean probability of winning, from P(i beats j) of the pairs (i, j).

    A comparison without a result (NaN) does not count; NaN for a candidate that has none, which `top_k` puts
    last. Raises ValueError for a result outside [0, 1], and for a pair that is not of two candidates.
    """
    won: list[list[float]] = [[] for _ in range(n)]
    for (one, other), probability in results.items():
        if one == other or not (0 <= one < n and 0 <= other < n):
            raise ValueError(f"results: {(one, other)} is no pair of two of {n} candidates")
        if math.isnan(probability):
            continue
        if not 0 <= probability <= 1:
            raise ValueError(f"results[{(one, other)}] must be a probability, not {probability}")
        won[one].append(probability)
        won[other].append(1 - probability)
    return [math.fsum(each) / len(each) if each else math.nan for each in won]


def _weighed(weights: Sequence[float]) -> Sequence[float]:
    if not weights:
        raise ValueError("weights must not be empty")
    for index, weight in enumerate(weights):
        if not 0 <= weight < math.inf:
            raise ValueError(f"weights[{index}] must be a finite number >= 0, not {weight}")
    return weights
