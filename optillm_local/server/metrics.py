"""Counts of the server and of its engine, in Prometheus' text format."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from optillm_local.core.usage import EngineStats
from optillm_local.server.queue import Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds
_GAUGES = ("running", "waiting", "peak_running", "kv_cache_usage")
_MEANINGS = {
    "steps": "Forward passes of the model over a batch.",
    "computed_prompt_tokens": "Prompt tokens that were prefilled.",
    "cached_prompt_tokens": "Prompt tokens found in the prefix cache.",
    "generated_tokens": "Tokens sampled.",
    "preemptions": "Sequences pushed out of the KV cache.",
    "running_steps": "Sequences in the batch, summed over the steps.",
    "waiting_steps": "Sequences that waited, summed over the steps.",
    "peak_running": "Most sequences in one step.",
    "running": "Sequences in the batch.",
    "waiting": "Sequences that wait.",
    "kv_cache_usage": "Share of KV-cache blocks in use.",
}


class Metrics:
    """What the server has answered since it started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.disconnected = 0
        self._seconds: Counter[float] = Counter()
        self._sum = 0.0

    def count(self, path: str, status: int, seconds: float) -> None:
        """One request is over. `path` must be one of few: every one becomes a time series."""
        self.requests[path, status] += 1
        self._sum += seconds
        self._seconds[next((bound for bound in _BOUNDS if seconds <= bound), float("inf"))] += 1

    def render(self, queue: Queue, engine: EngineStats) -> str:
        """The page; with the metrics of vLLM itself where its process has any."""
        lines = [*self._of_requests(), *_of_queue(queue), *_of_engine(engine)]
        return "\n".join(lines) + "\n" + _of_vllm()

    def _of_requests(self) -> Iterator[str]:
        yield from _about("requests_total", "counter", "Requests answered, by path and status.")
        for (path, status), count in sorted(self.requests.items()):
            yield f'optillm_local_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _single(
            "disconnected_total", "counter", "Requests given up by their client.", self.disconnected
        )
        yield from _about("request_seconds", "histogram", "Time from request to the end of its answer.")
        below = 0
        for bound in (*_BOUNDS, float("inf")):
            below += self._seconds[bound]
            spelled = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'optillm_local_request_seconds_bucket{{le="{spelled}"}} {below}'
        yield f"optillm_local_request_seconds_sum {self._sum:.6f}"
        yield f"optillm_local_request_seconds_count {below}"


def _of_queue(queue: Queue) -> Iterator[str]:
    yield from _single("queue_running", "gauge", "Requests that run.", queue.running)
    yield from _single("queue_waiting", "gauge", "Requests that wait.", queue.waiting)
    yield from _single("queue_refused_total", "counter", "Requests told to come back.", queue.refused)


def _of_engine(engine: EngineStats) -> Iterator[str]:
    for name, meaning in _MEANINGS.items():
        kind, suffix = ("gauge", "") if name in _GAUGES else ("counter", "_total")
        yield from _single(f"engine_{name}{suffix}", kind, meaning, getattr(engine, name))


def _of_vllm() -> str:
    """Of the default registry, which vLLM writes to; the library is there if vLLM has imported it."""
    library = sys.modules.get("prometheus_client")
    return library.generate_latest().decode() if library else ""


def _single(name: str, kind: str, meaning: str, value: float) -> Iterator[str]:
    yield from _about(name, kind, meaning)
    yield f"optillm_local_{name} {value}"


def _about(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP optillm_local_{name} {meaning}"
    yield f"# TYPE optillm_local_{name} {kind}"
