"""What a call cost, and what the engine did: plain counts that add up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call, or the sum over many.

    Attributes:
        prompt: tokens the model was given.
        cached: of `prompt`, those whose keys and values came from the prefix cache.
        completion: tokens the model generated, whatever became of them.
        reasoning: of `completion`, those inside thinking tags.
        discarded: of `completion`, those of aborted sequences and of reads that need only log-probabilities.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    discarded: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """The five counts and `total`."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of the engine since it started; two snapshots subtract to what happened between them.

    Attributes:
        steps: forward passes of the model over a batch.
        computed_prompt_tokens: prompt tokens that were prefilled.
        cached_prompt_tokens: prompt tokens found in the prefix cache instead.
        generated_tokens: tokens sampled.
        preemptions: running sequences pushed out of the KV cache and computed again.
        running_steps, waiting_steps: sequences in the batch and in the queue, summed over the steps.
        peak_running: most sequences in one step since the engine started (the later snapshot's in a difference).
        running, waiting: sequences in the batch and in the queue at the last step.
        kv_cache_usage: share of KV-cache blocks in use at the last step, 0 to 1.
    """

    steps: int = 0
    computed_prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    running_steps: int = 0
    waiting_steps: int = 0
    peak_running: int = 0
    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0

    @property
    def mean_batch(self) -> float:
        """Generated tokens per step: how full the continuous batch was."""
        return self.generated_tokens / self.steps if self.steps else 0.0

    def __sub__(self, earlier: EngineStats) -> EngineStats:
        return EngineStats(
            self.steps - earlier.steps,
            self.computed_prompt_tokens - earlier.computed_prompt_tokens,
            self.cached_prompt_tokens - earlier.cached_prompt_tokens,
            self.generated_tokens - earlier.generated_tokens,
            self.preemptions - earlier.preemptions,
            self.running_steps - earlier.running_steps,
            self.waiting_steps - earlier.waiting_steps,
            self.peak_running,
            self.running,
            self.waiting,
            self.kv_cache_usage,
        )

    def as_dict(self) -> dict[str, float]:
        """All counters and `mean_batch`."""
        return {**asdict(self), "mean_batch": round(self.mean_batch, 3)}
