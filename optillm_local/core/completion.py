"""What comes back: completions, choices between options, and scores of given text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from optillm_local.core.prompt import Message
from optillm_local.core.statistics import TokenStatistics
from optillm_local.core.usage import TokenUsage

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled sequence.

    Attributes:
        text: what the model wrote, thinking included, special tokens left out.
        token_ids: what it generated, the end-of-sequence token included.
        finish_reason: `stop` (end token or stop text), `length` (max_tokens or context), `abort`.
        logprobs: natural log-probability of each token under the unscaled model, one per id; NaN where it was put
            into the model's mouth; empty if not asked for.
        top_logprobs: per token, (id, log-probability) of the likeliest alternatives; empty if not asked for.
        statistics: how sure the model was of each token; None if not asked for, or where the client lists
            alternatives instead.
        reasoning: the part inside thinking tags, without them.
        answer: the part after the thinking; equal to `text` where there is none.
        seed: the seed this sequence was drawn with.
        usage: its tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: TokenUsage
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    statistics: TokenStatistics | None = None
    reasoning: str = ""
    answer: str = ""
    seed: int | None = None

    @property
    def mean_logprob(self) -> float:
        """Length-normalised log-likelihood in nats per token, of the known ones; NaN if none is."""
        known = [logprob for logprob in self.logprobs if not math.isnan(logprob)]
        return math.fsum(known) / len(known) if known else math.nan

    @property
    def confidence(self) -> float:
        """Average trace confidence: the mean over tokens of minus the mean log-probability of the top k.

        Higher is surer: mass on one token leaves little for the others. NaN where neither `statistics` nor
        `top_logprobs` were asked for.
        Source: Fu et al., "Deep Think with Confidence", 2025, section 2 (token and average trace confidence).
        """
        if self.statistics is not None:
            known = [one for one in self.statistics.of("confidence").tolist() if not math.isnan(one)]
            return math.fsum(known) / len(known) if known else math.nan
        tokens = [-sum(lp for _, lp in top) / len(top) for top in self.top_logprobs if top]
        return sum(tokens) / len(tokens) if tokens else math.nan

    def message(self) -> Message:
        """The completion as an assistant turn that a follow-up continues from, token for token."""
        return Message("assistant", self.text, self.token_ids)


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision read from log-probabilities.

    Attributes:
        probabilities: P(option | prompt), normalised over the options, in the order they were given.
        label_mass: probability the options hold together before normalising, 0 to 1. Near 0 the model
            wanted to say something else, and the probabilities mean little.
        usage: tokens of all reads.
    """

    probabilities: Mapping[str, float]
    label_mass: float
    usage: TokenUsage

    @property
    def best(self) -> str:
        """The most probable option; the first of equals."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    def __getitem__(self, option: str) -> float:
        return self.probabilities[option]


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced log-probabilities of a given continuation.

    Attributes:
        token_ids: the continuation, tokenised.
        logprobs: natural log-probability of each of them after the prefix and those before it.
        usage: tokens of the read.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    usage: TokenUsage

    @property
    def total(self) -> float:
        """log P(continuation | prefix), in nats."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        """Nats per token; 0 for an empty continuation."""
        return self.total / len(self.logprobs) if self.logprobs else 0.0


@dataclass(frozen=True, slots=True)
class OutputTextDelta:
    """Text and tokens that were just decoded.

    Attributes:
        delta: new text; may be empty while a character is incomplete.
        token_ids: new tokens; several where the reader was slower than the engine.
        logprobs: log-probability of each new token, if asked for.
        top_logprobs: likeliest alternatives of each new token, if asked for.
        statistics: how sure the model was of each new token; see `Completion`.
    """

    delta: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    statistics: TokenStatistics | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a sequence; nothing follows."""

    completion: Completion

    @property
    def usage(self) -> TokenUsage:
        """Tokens of the sequence."""
        return self.completion.usage

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        return self.completion.finish_reason


ResponseEvent = OutputTextDelta | Completed


@dataclass(slots=True)
class Transcript:
    """Deltas of one sequence, put together again."""

    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    statistics: list[TokenStatistics] = field(default_factory=list)

    def add(self, delta: OutputTextDelta) -> None:
        """Append what was just decoded."""
        self.token_ids += delta.token_ids
        self.text.append(delta.delta)
        self.logprobs += delta.logprobs
        self.top_logprobs += delta.top_logprobs
        if delta.statistics is not None:
            self.statistics.append(delta.statistics)

    def finish(
        self,
        reason: FinishReason,
        *,
        prompt_tokens: int,
        cached_tokens: int = 0,
        reasoning: str = "",
        answer: str | None = None,
        reasoning_tokens: int = 0,
        seed: int | None = None,
    ) -> Completion:
        """The completion; an aborted one counts all its tokens as discarded."""
        count = len(self.token_ids)
        text = "".join(self.text)
        return Completion(
            text=text,
            token_ids=tuple(self.token_ids),
            finish_reason=reason,
            usage=TokenUsage(
                prompt_tokens, cached_tokens, count, reasoning_tokens, count if reason == "abort" else 0
            ),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top_logprobs),
            statistics=TokenStatistics.joined(self.statistics) if self.statistics else None,
            reasoning=reasoning,
            answer=text if answer is None else answer,
            seed=seed,
        )
