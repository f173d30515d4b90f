"""Scores that lie in a candidate's own log-probabilities: no further call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from statistics import median
from typing import ClassVar

from optillm_local.confidence import measures
from optillm_local.confidence.scorer import Pointwise, Scorer
from optillm_local.confidence.spans import answer_tokens
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt

TOP_K = 20
"""Alternatives per token that confidence is computed from (Fu et al. 2025 use vLLM's top 20)."""


class _Measured(Pointwise):
    """A number computed from what was sampled; NaN without log-probabilities."""

    logprobs: ClassVar[int | None] = TOP_K

    async def judge(self, question: Prompt, candidate: Completion, client: ModelClient) -> float:
        return self.measure(candidate)

    @abstractmethod
    def measure(self, candidate: Completion) -> float:
        """The number."""


@frozen_options
class LogProbability(_Measured):
    """Length-normalised log-likelihood, in nats per token."""

    name: ClassVar[str] = "logprob"
    description: ClassVar[str] = "mean log-probability"
    logprobs: ClassVar[int | None] = 0

    def measure(self, candidate: Completion) -> float:
        return candidate.mean_logprob


@frozen_options
class SelfCertainty(_Measured):
    """How far the token distributions are from uniform (Kang et al. 2025), as far as the top 20 tell."""

    name: ClassVar[str] = "self_certainty"
    description: ClassVar[str] = "self-certainty"

    def measure(self, candidate: Completion) -> float:
        return measures.mean_over(measures.self_certainty(candidate))


@frozen_options
class Entropy(_Measured):
    """Minus the mean entropy of the token distributions, in nats."""

    name: ClassVar[str] = "entropy"
    description: ClassVar[str] = "negative entropy"

    def measure(self, candidate: Completion) -> float:
        return -measures.mean_over(measures.entropy(candidate))


@frozen_options
class Confidence(_Measured):
    """Average trace confidence (Fu et al. 2025, section 2)."""

    name: ClassVar[str] = "confidence"
    description: ClassVar[str] = "confidence"

    def measure(self, candidate: Completion) -> float:
        return candidate.confidence


class _OfGroups(Scorer):
    """A confidence of DeepConf's that looks at groups of tokens.

    Groups of different sizes do not compare, so the candidates have one size, which fits their typical length.
    """

    comparative: ClassVar[bool] = True
    logprobs: ClassVar[int | None] = TOP_K

    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        if not candidates:
            return []
        window = measures.window_for(round(median(len(one.token_ids) for one in candidates)))
        return [self.of(measures.token_confidence(one), window) for one in candidates]

    @abstractmethod
    def of(self, confidences: measures.Floats, window: int) -> float:
        """The number, from the confidence of each token."""


@frozen_options
class LowestGroup(_OfGroups):
    """The least confident group of tokens (Fu et al. 2025, section 3.1)."""

    name: ClassVar[str] = "lowest_group"
    description: ClassVar[str] = "lowest group confidence"

    def of(self, confidences: measures.Floats, window: int) -> float:
        return measures.lowest_group(confidences, window)


@frozen_options
class BottomGroup(_OfGroups):
    """The mean of the least confident tenth of the groups (Fu et al. 2025, section 3.1)."""

    name: ClassVar[str] = "bottom_group"
    description: ClassVar[str] = "bottom 10 % group confidence"

    def of(self, confidences: measures.Floats, window: int) -> float:
        return measures.bottom_group(confidences, window)


@frozen_options
class Tail(_OfGroups):
    """The last tokens, where the answer is (Fu et al. 2025, section 3.1)."""

    name: ClassVar[str] = "tail"
    description: ClassVar[str] = "tail confidence"

    def of(self, confidences: measures.Floats, window: int) -> float:
        return measures.tail(confidences, window)


@frozen_options
class AnswerSpan(Pointwise):
    """The confidence of the tokens that state the answer, of all tokens where none is stated."""

    name: ClassVar[str] = "answer_span"
    description: ClassVar[str] = "confidence in the stated answer"
    logprobs: ClassVar[int | None] = TOP_K

    async def judge(self, question: Prompt, candidate: Completion, client: ModelClient) -> float:
        return measures.mean_over(measures.token_confidence(candidate), answer_tokens(candidate, client))


KINDS = (LogProbability, SelfCertainty, Entropy, Confidence, LowestGroup, BottomGroup, Tail, AnswerSpan)
