"""How long a call takes: medians over replays of a CUDA graph, or of a clock on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]

WARM_UP = 3
"""Calls before anything is timed: they compile what is compiled at the first call."""

LONG_ENOUGH_US = 400.0
"""Shortest replay: shorter ones measure the gap between two launches."""

MOST_CALLS = 64
"""In one graph, whose memory grows with them."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of one call.

    Attributes:
        low, median, high: 20th, 50th and 80th percentile over the replays of both runs.
        spread: the larger run's median over the smaller's, minus 1.
        replays: how many were timed; each has `calls` calls, and its time is divided by them.
        how: `graph`; `events`, one by one between two CUDA events, launches included; or `clock`, on a CPU.
        l2_warm: whether all that the calls touch fits into the L2 cache, so that it is no figure of memory.
    """

    low: float
    median: float
    high: float
    spread: float
    replays: int
    calls: int
    how: str
    l2_warm: bool = False


def measure(calls: Sequence[Call], seconds: float, *, graph: bool = True, l2_warm: bool = False) -> Timing:
    """Time calls that do the same on different buffers, in turn, for about `seconds`.

    Args:
        calls: one per set of buffers.
        seconds: of both runs together. At least five replays are timed whatever they take.
        graph: whether the calls can be captured; those that wait for the device cannot.
        l2_warm: as in `Timing`.
    """
    for call in [*calls, *calls[:1] * (WARM_UP - 1)]:
        call()
    if not torch.cuda.is_available():
        return _summary(
            [_run(lambda: _on_clock(calls), seconds / 2) for _ in range(2)], len(calls), "clock", False
        )
    torch.cuda.synchronize()
    once = _between_events(lambda: [call() for call in calls]) / len(calls)
    wanted = min(MOST_CALLS, max(len(calls), round(LONG_ENOUGH_US / max(once, 1.0))))
    replay = _captured([calls[index % len(calls)] for index in range(wanted)]) if graph else None
    if replay is None:
        runs = [_run(lambda: _between_events(lambda: [call() for call in calls]), seconds / 2) for _ in range(2)]
        return _summary(runs, len(calls), "events", l2_warm)
    replay()
    runs = [_run(lambda: _between_events(replay), seconds / 2) for _ in range(2)]
    return _summary(runs, wanted, "graph", l2_warm)


def rotations(size: int, cache: int) -> int:
    """Sets of buffers of `size` bytes that together are four times the cache, 64 at most, so that none stays."""
    return max(1, min(MOST_CALLS, -(-4 * cache // max(size, 1)))) if size < 2 * cache else 1


def l2_bytes() -> int:
    """Of this GPU; 0 without one, so that nothing is rotated."""
    if not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)


def _captured(calls: Sequence[Call]) -> Call | None:
    """Replay of these calls as one graph, from a side stream that has seen them run; None if that cannot be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()  # results are dropped: the graph's pool reuses their memory for the next call
    except RuntimeError:  # they wait for the device somewhere
        torch.cuda.synchronize()
        return None
    return graph.replay


def _run(once: Callable[[], float], seconds: float) -> list[float]:
    end, found = time.monotonic() + seconds, list[float]()
    while len(found) < 5 or (time.monotonic() < end and len(found) < 2000):
        found.append(once())
    return found


def _between_events(work: Call) -> float:
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    work()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) * 1e3


def _on_clock(calls: Sequence[Call]) -> float:
    started = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - started) * 1e6


def _summary(runs: Sequence[Sequence[float]], calls: int, how: str, l2_warm: bool) -> Timing:
    all_of_them = [value / calls for run in runs for value in run]
    deciles = statistics.quantiles(all_of_them, n=10, method="inclusive")
    medians = sorted(statistics.median(run) for run in runs)
    return Timing(
        deciles[1],
        statistics.median(all_of_them),
        deciles[7],
        medians[-1] / medians[0] - 1,
        len(all_of_them),
        calls,
        how,
        l2_warm,
    )
