"""Token-level confidence of what was sampled; natural logarithms throughout.

What the client measured itself (`TokenStatistics`) is taken; otherwise it is computed here from the listed
alternatives, by the same definitions.

Per token, an array [tokens]: `token_confidence`, `self_certainty`, `entropy`, `varentropy`, `margin`. Of a trace,
a number: `mean_over` for all or a span of its tokens, and `lowest_group`, `bottom_group` and `tail`, which take
token confidences. `GroupConfidence` is `lowest_group` while a trace is being written; `confidence_threshold` is
over traces.

What is unknown is NaN and never an error: a token without alternatives, a trace without tokens. Means leave
unknown tokens out. A listed alternative of probability 0 makes a confidence infinite, as the formulas say.

Sources: Fu et al., "Deep Think with Confidence", 2025 (DeepConf); Kang, Zhao and Song, "Scalable Best-of-N
Selection for Large Language Models via Self-Certainty", 2025; Wang and Zhou, "Chain-of-Thought Reasoning Without
Prompting", 2024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optillm_local.core.statistics import TokenStatistics

Floats = NDArray[np.float64]

WINDOW = 2048
"""Tokens of a group, and of a tail (DeepConf, section 3.1)."""

BOTTOM_PERCENT = 10
"""Groups that count for `bottom_group` (DeepConf, section 3.1)."""

KEEP_LOW, KEEP_HIGH = 0.1, 0.9
"""Share of traces that DeepConf-low and DeepConf-high keep (sections 3.2 and 3.3)."""

_LEAST_GROUPS = 4


class Sampled(Protocol):
    """Tokens and what is known of each: a `Completion`, or an `OutputTextDelta` of one."""

    @property
    def top_logprobs(self) -> tuple[tuple[tuple[int, float], ...], ...]: ...

    @property
    def statistics(self) -> TokenStatistics | None: ...


def top_logprobs(sampled: Sampled) -> Floats:
    """The log-probabilities of each token's alternatives, likeliest first: [tokens, k].

    A token that lists fewer than the others has NaN for the rest.
    """
    rows = [[logprob for _, logprob in alternatives] for alternatives in sampled.top_logprobs]
    width = max(map(len, rows), default=0)
    table = np.array([row + [math.nan] * (width - len(row)) for row in rows], dtype=np.float64)
    descending: Floats = -np.sort(-table.reshape(len(rows), width), axis=1)
    return descending


def token_confidence(sampled: Sampled) -> Floats:
    """C_i = -(1/k) sum_j log P_i(j) over the k listed alternatives of token i: [tokens], from log k upwards.

    The sharper the distribution, the less is left for the runners-up and the higher it is. Comparable for the same
    k only. Source: DeepConf, section 2.
    """
    if sampled.statistics is not None:
        return sampled.statistics.of("confidence")
    return -_mean_of_rows(top_logprobs(sampled))


def self_certainty(sampled: Sampled) -> Floats:
    """KL(uniform || P_i) over the k listed alternatives, renormalised to 1: [tokens], from 0 upwards.

    That is -(1/k) sum_j log(k q_j) with q_j = P(j) / (the mass of all k), or C_i - log k + log(mass). The paper's
    is -(1/V) sum_j log(V P(j)) over the whole vocabulary V, which no list of k alternatives determines: the mass
    beside the list says nothing about how it is spread. Source: Kang et al. 2025, section 3 (self-certainty).
    """
    if sampled.statistics is not None:
        return sampled.statistics.of("self_certainty")
    table = top_logprobs(sampled)
    with np.errstate(divide="ignore", invalid="ignore"):
        certainty = np.log(_mass(table)) - np.log(_listed(table)) - _mean_of_rows(table)
        return np.asarray(np.maximum(certainty, 0.0))  # rounding may fall short of 0


def entropy(sampled: Sampled) -> Floats:
    """H_i = -sum_j P(j) log P(j) in nats, all that is not listed counting as one alternative: [tokens].

    A lower bound: splitting that one up could only add. Exact where the list has all the mass. Source: DeepConf,
    section 2 (token entropy).
    """
    return _moments(sampled)[0] if sampled.statistics is None else sampled.statistics.of("entropy")


def varentropy(sampled: Sampled) -> Floats:
    """The variance of -log P(j) under P, in nats squared, all that is not listed counting as one: [tokens].

    Exact where the list has all the mass, and no bound otherwise.
    """
    return _moments(sampled)[1] if sampled.statistics is None else sampled.statistics.of("varentropy")


def margin(sampled: Sampled) -> Floats:
    """P(likeliest) - P(second likeliest): [tokens], 0 to 1; NaN where fewer than two are listed.

    Over the tokens of the answer, its mean is the Delta of Wang and Zhou 2024, section 2.2.
    """
    if sampled.statistics is not None:
        return sampled.statistics.of("margin")
    best = np.exp(top_logprobs(sampled)[:, :2])
    return np.subtract(best[:, 0], best[:, 1]) if best.shape[1] == 2 else np.full(len(best), math.nan)


def mean_over(values: Floats, span: slice = slice(None)) -> float:
    """The mean of the known values of a span of tokens, or of all; NaN if none is known."""
    known = _known(values[span])
    return float(known.mean()) if known.size else math.nan


def window_for(tokens: int, window: int = WINDOW) -> int:
    """Tokens of a group for traces of about this many tokens: `window`, or a quarter of a trace if that is less.

    The quarter is ours. DeepConf's traces have tens of thousands of tokens; a trace below one window would be a
    single group that ends when the trace does, and nothing could be stopped early. Groups of different sizes do
    not compare, so one window serves all traces of a question: take it from their typical length.
    """
    return max(1, min(window, tokens // _LEAST_GROUPS))


def group_confidence(confidences: Floats, window: int = WINDOW) -> Floats:
    """The mean of every `window` successive tokens, or of all if they are fewer: [groups].

    Source: DeepConf, section 3.1 (group confidence).
    """
    known = _known(confidences)
    if not known.size:
        return known
    return np.asarray(np.lib.stride_tricks.sliding_window_view(known, min(window, known.size)).mean(axis=1))


def lowest_group(confidences: Floats, window: int = WINDOW) -> float:
    """The least confident group (DeepConf, section 3.1)."""
    return float(min(group_confidence(confidences, window), default=math.nan))


def bottom_group(confidences: Floats, window: int = WINDOW) -> float:
    """The mean of the 10 % least confident groups, of one at least (DeepConf, section 3.1)."""
    groups = np.sort(group_confidence(confidences, window))
    return mean_over(groups[: max(1, groups.size * BOTTOM_PERCENT // 100)])


def tail(confidences: Floats, tokens: int = WINDOW) -> float:
    """The mean of the last `tokens` tokens, where the answer is (DeepConf, section 3.1)."""
    return mean_over(confidences[-tokens:])


class GroupConfidence:
    """`lowest_group` of a trace that is still being written, in constant time per token.

    The window is kept as two stacks, so that nothing is ever subtracted: a long trace loses no precision, and an
    infinite confidence is forgotten when it leaves the window.
    """

    def __init__(self, window: int = WINDOW) -> None:
        """Raises ValueError for a window below one token."""
        if window < 1:
            raise ValueError(f"window must be at least 1 token, not {window}")
        self.window = window
        self._lowest = math.inf
        self._older: list[float] = []  # sums from each older token to the last of them; the top is of all
        self._newer: list[float] = []
        self._newer_sum = 0.0

    @property
    def mean(self) -> float:
        """Of the last `window` tokens, or of all so far if they are fewer; NaN before the first."""
        tokens = len(self._older) + len(self._newer)
        older = self._older[-1] if self._older else 0.0
        return (older + self._newer_sum) / tokens if tokens else math.nan

    @property
    def is_full(self) -> bool:
        """Whether there is a whole group."""
        return len(self._older) + len(self._newer) == self.window

    @property
    def lowest(self) -> float:
        """The least confident whole group so far; the mean of all tokens before there is one."""
        return self._lowest if self.is_full else self.mean

    def add(self, values: Iterable[float]) -> float:
        """Take in the confidences of the next tokens, NaN being left out; the mean after the last."""
        for value in values:
            if not math.isnan(value):
                self._push(float(value))
        return self.mean

    def is_below(self, threshold: float) -> bool:
        """Whether a whole group has been less confident than `threshold`: the trace may be stopped.

        Never for a threshold of NaN. Source: DeepConf, section 3.3 (online early stopping).
        """
        return self.is_full and self._lowest < threshold

    def _push(self, value: float) -> None:
        if self.is_full:
            self._pop()
        self._newer.append(value)
        self._newer_sum += value
        if self.is_full:
            self._lowest = min(self._lowest, self.mean)

    def _pop(self) -> None:
        if not self._older:
            self._older = list(accumulate(reversed(self._newer)))
            self._newer, self._newer_sum = [], 0.0
        self._older.pop()


def confidence_threshold(confidences: Sequence[float], keep: float = KEEP_LOW) -> float:
    """The confidence that a share `keep` of the traces reaches: the 90th percentile keeps a tenth.

    Of the lowest groups of DeepConf's warm-up traces it is the value below which later ones are stopped. What is
    not finite is left out; NaN if nothing remains. Raises ValueError for a share outside [0, 1]. Source: DeepConf,
    section 3.3.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be a share from 0 to 1, not {keep}")
    values = np.asarray(confidences, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, 100 - 100 * keep)) if finite.size else math.nan


def answer_span(text: str, answer: str) -> tuple[int, int] | None:
    """Start and end of the last place where `text` has `answer` as a word of its own, in characters.

    Of the last place at all if it is never one; None if it is nowhere, or empty.
    """
    if not answer:
        return None
    alone = rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w|[.,]\d)"
    starts = [match.start() for match in re.finditer(alone, text)] or [text.rfind(answer)]
    return None if starts[-1] < 0 else (starts[-1], starts[-1] + len(answer))


def _moments(sampled: Sampled) -> tuple[Floats, Floats]:
    """Mean and variance of -log P, over the listed alternatives and one that has the rest of the mass."""
    table = top_logprobs(sampled)
    rest = np.clip(1 - _mass(table), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprisal = -np.column_stack([table, np.log(rest)])
        weights = np.exp(-surprisal)
        entropies = _weighted(weights, surprisal)
        return entropies, _weighted(weights, (surprisal - entropies[:, np.newaxis]) ** 2)


def _weighted(weights: Floats, values: Floats) -> Floats:
    """Sums over the alternatives, where no weight means no value; NaN for a token of which nothing is known."""
    sums: Floats = np.where(weights > 0, weights * values, 0.0).sum(axis=1)
    sums[np.isnan(weights).all(axis=1)] = math.nan
    return sums


def _listed(table: Floats) -> Floats:
    return np.asarray((~np.isnan(table)).sum(axis=1), dtype=np.float64)


def _mass(table: Floats) -> Floats:
    """Probability of all that is listed; NaN where nothing is."""
    return np.asarray(np.where(_listed(table) > 0, np.nansum(np.exp(table), axis=1), math.nan))


def _mean_of_rows(table: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(table, axis=1) / _listed(table))


def _known(values: Floats) -> Floats:
    return np.asarray(values[~np.isnan(values)])
