"""The engine's own statistics, summed up: counts that other load on the machine cannot change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optillm_local.core.usage import EngineStats


class Counters:
    """A vLLM stat logger, by its methods: to import vllm for its base class would be too early (see `start`).

    `record` is called once per engine step, on the engine's thread, after the outputs of the step were handed
    over; it calls `recorded` once they are counted.
    """

    def __init__(self, recorded: Callable[[], None]) -> None:
        self._recorded = recorded
        self.steps = self.computed = self.cached = self.generated = self.preempted = 0
        self.running_steps = self.waiting_steps = self.peak_running = self.running = self.waiting = 0
        self.kv_cache_usage = 0.0

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> Counters:
        """vLLM asks for a factory of loggers; all engines of one handle count here."""
        return self

    def log_engine_initialized(self) -> None:
        """Nothing to log."""

    def log(self) -> None:
        """Nothing to log."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Sleeping is not counted."""

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add one step."""
        if scheduler_stats is not None:
            self.steps += 1
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs
            self.kv_cache_usage = scheduler_stats.kv_cache_usage
            self.running_steps += self.running
            self.waiting_steps += self.waiting
        if iteration_stats is not None:
            self.computed += iteration_stats.prompt_token_stats.computed
            self.cached += iteration_stats.prompt_token_stats.cached_tokens
            self.generated += iteration_stats.num_generation_tokens
            self.preempted += iteration_stats.num_preempted_reqs
            self.peak_running = max(self.peak_running, self.running + len(iteration_stats.finished_requests))
        self._recorded()

    def snapshot(self) -> EngineStats:
        """The counts now."""
        return EngineStats(
            steps=self.steps,
            computed_prompt_tokens=self.computed,
            cached_prompt_tokens=self.cached,
            generated_tokens=self.generated,
            preemptions=self.preempted,
            running_steps=self.running_steps,
            waiting_steps=self.waiting_steps,
            peak_running=self.peak_running,
            running=self.running,
            waiting=self.waiting,
            kv_cache_usage=self.kv_cache_usage,
        )
