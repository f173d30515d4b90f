"""What it costs to know how sure the model is of each token, and what ending inside the step saves.

* cost: tokens per second of sequences that report nothing, that list 20 alternatives per token, and that the
  engine measures over 20 alternatives; in turns, as ratios to reporting nothing in the same round (median).
* ended: tokens of sequences that end where their confidence falls below a floor (the median of what they reach),
  when the engine ends them at that very token, and when whoever reads their deltas does (every 8 tokens).

    python benchmarks/measuring.py [--n 32] [--tokens 64] [--rounds 5] [--model ID_OR_PATH] [--out DIR]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from records import RESULTS, append
from rich.console import Console
from tables import table
from tasks import progress_bar

from optillm_local import EngineSettings, Prompt, VLLMClient
from optillm_local.confidence.measures import GroupConfidence, group_confidence, token_confidence
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.generation import NOW_AND_THEN
from optillm_local.core.statistics import Floor

K, WINDOW = 20, 8
WAYS: Mapping[str, dict[str, Any]] = {
    "nothing": {"logprobs": None},
    "listed": {"logprobs": K},
    "measured": {"logprobs": None, "statistics": K},
}
QUESTION = Prompt.of("Tell a story about a lighthouse and the people who live near it.", temperature=0.8, seed=0)


async def cost(client: VLLMClient, n: int, tokens: int, rounds: int, done: Callable[[], object]) -> dict[str, Any]:
    """Tokens per second of each way, and the ratio to reporting nothing in the same round."""
    speed: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):  # the first warms up
        for way, how in WAYS.items():
            started = time.perf_counter()
            group = await client.sample(QUESTION, n=n, max_tokens=tokens, **how)
            if turn:
                generated = sum(one.usage.completion for one in group)
                speed[way].append(generated / (time.perf_counter() - started))
            done()
    ratios = {way: [a / b for a, b in zip(speed[way], speed["nothing"], strict=True)] for way in WAYS}
    return {
        way: {
            "tokens/s": round(statistics.median(speed[way]), 1),
            "of nothing": round(statistics.median(ratios[way]), 3),
            "spread": [round(min(ratios[way]), 3), round(max(ratios[way]), 3)],
        }
        for way in WAYS
    }


async def watched(client: VLLMClient, prompts: Sequence[Prompt], floor: Floor) -> list[Completion]:
    """Sequences that their reader ends when a delta shows that they fell below."""
    seen = [GroupConfidence(floor.window) for _ in prompts]
    done: dict[int, Completion] = {}
    async with client.generate(prompts, report_every=NOW_AND_THEN) as group:
        async for index, event in group:
            if isinstance(event, Completed):
                done[index] = event.completion
                continue
            seen[index].add(token_confidence(event))
            if seen[index].is_below(floor.confidence):
                group.stop(index)
    return [done[index] for index in range(len(prompts))]


async def ended(client: VLLMClient, n: int, tokens: int, done: Callable[[], object]) -> dict[str, Any]:
    """Tokens generated and thrown away, by who ends a sequence."""
    prompts = QUESTION.but(max_tokens=tokens, statistics=K).fan(n)
    async with client.generate(prompts) as group:
        whole = [event.completion async for _, event in group if isinstance(event, Completed)]
    done()
    lowest = [float(group_confidence(token_confidence(one), WINDOW).min()) for one in whole]
    floor = Floor(float(np.median(lowest)), WINDOW)
    inside = await client.sample(prompts[0].but(floor=floor), n=n)
    done()
    outside = await watched(client, prompts, floor)
    done()
    fell = [[_falls_below(one, floor) for one in group] for group in (inside, outside)]
    same = sum(ours == theirs for ours, theirs in zip(*fell, strict=True))
    found = {"engine": inside, "reader": outside, "nobody": whole}
    return {
        by: {
            "ended": sum(one.finish_reason == "abort" for one in group),
            "generated": sum(one.usage.completion for one in group),
            "discarded": sum(one.usage.discarded for one in group),
            "same verdict": f"{same} of {n}" if by != "nobody" else "-",
        }
        for by, group in found.items()
    }


def _falls_below(one: Completion, floor: Floor) -> bool:
    """Whether any group does; one that falls with its last tokens may be over before its reader ends it."""
    return bool((group_confidence(token_confidence(one), floor.window) < floor.confidence).any())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="sequences side by side")
    parser.add_argument("--tokens", type=int, default=64, help="of each")
    parser.add_argument("--rounds", type=int, default=5, help="of timing each way, beside one to warm up")
    parser.add_argument("--model", help="path or Hugging Face id; the embedded model if left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    return parser.parse_args(arguments)


async def measured(client: VLLMClient, options: argparse.Namespace, done: Callable[[], object]) -> dict[str, Any]:
    """Both parts."""
    return {
        "cost": await cost(client, options.n, options.tokens, options.rounds, done),
        "ended": await ended(client, options.n, options.tokens, done),
    }


async def measure(options: argparse.Namespace) -> None:
    """Measure, print, append one record."""
    settings = EngineSettings.load(model=options.model, max_model_len=1024, kernels=True)
    async with VLLMClient(settings) as client:
        with progress_bar() as progress:
            bar = progress.add_task("measuring", total=len(WAYS) * (options.rounds + 1) + 3)
            found = await measured(client, options, lambda: progress.advance(bar))
    for part, rows in found.items():
        Console().print(table(part, rows))
    about = {"n": options.n, "tokens": options.tokens, "rounds": options.rounds, "k": K, "window": WINDOW}
    record = {**about, **found, "settings": settings.model_dump(mode="json")}
    Console().print(f"record in {append('measuring', record, options.out)}", soft_wrap=True)


if __name__ == "__main__":
    anyio.run(measure, parse())
