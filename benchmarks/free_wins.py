"""What costs nothing and saves something, each with its figure before and after.

* host: microseconds per token and request in vLLM's output processor for k alternatives, by how they are recorded
  (a dictionary for each token or flat lists) and what is detokenised. The engine of this package runs the row
  `text` where text is needed and the row `flat, no text` where it is not (reads of labels and scores).
* order: how many siblings are neighbours in the batch when several groups are asked at once, and the prompt tokens
  that come out of the prefix cache, with siblings submitted in turns and side by side.
* layout: prompt tokens that are computed for MARS's agents with what differs between them first and last.

The counts are exact; the microseconds are process time, alternating between the ways, the median of the rounds.

    python benchmarks/free_wins.py [--parts host order layout] [--quick] [--model ID_OR_PATH] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from records import RESULTS, append
from rich.console import Console
from tables import table
from tasks import progress_bar

from optillm_local import EngineSettings, Message, Prompt, VLLMClient
from optillm_local.core.concurrency import each
from optillm_local.engine.batch import Batch
from optillm_local.engine.handle import EngineRequest, deliver_to
from optillm_local.engine.start import model_path
from optillm_local.optimizers.mars.agents import APPROACHES
from optillm_local.prompts import render

Found = dict[str, dict[str, Any]]

QUESTION = (
    "A school orders chairs for its new hall. There are 24 rows, and each of the first 10 rows has 18 chairs; "
    "every row after that has 2 chairs more than the row before it. A chair costs 35 euros, but above 300 "
    "chairs the shop takes 12 percent off the price of those beyond the 300th. Delivery is 90 euros for each "
    "lorry, and one lorry holds at most 150 chairs. The school has put 20,000 euros aside, and the parents' "
    "association pays a third of whatever is missing. How much does the school itself have to add to what it "
    "has put aside?"
)
SOLUTION = (
    "The first 10 rows have 180 chairs. The other 14 rows have 20, 22, ..., 46 chairs, which is 14 * 33 = "
    "462. In all there are 642 chairs. The first 300 cost 10,500 euros and the other 342 cost 342 * 30.80 = "
    "10,533.60 euros. Five lorries cost 450 euros. That makes 21,483.60 euros, of which 1,483.60 are missing. "
    "The parents pay a third, so the school has to add 989.07 euros. Final answer: 989.07"
)

# -- host ---------------------------------------------------------------------------------------------------------

HOST: Mapping[str, tuple[dict[str, Any], bool]] = {
    "dictionary": ({"flat_logprobs": False, "detokenize": True}, True),
    "flat": ({"flat_logprobs": True, "detokenize": True}, True),
    "text": ({"flat_logprobs": True, "detokenize": True}, False),
    "dictionary, no text": ({"flat_logprobs": False, "detokenize": False}, True),
    "flat, no text": ({"flat_logprobs": True, "detokenize": False}, True),
}
"""How a request records its alternatives, and whether vLLM makes the text of each."""


class Requests:
    """Requests in vLLM's output processor, as our engine puts them there, without an engine behind it."""

    def __init__(self, tokenizer: Any, way: str, requests: int, k: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.output_processor import OutputProcessor

        how, texts_of_alternatives = HOST[way]
        self._processor = OutputProcessor(tokenizer, log_stats=False)
        self._names = [f"{way} {index}" for index in range(requests)]
        params = SamplingParams(max_tokens=1 << 20, logprobs=k, output_kind=RequestOutputKind.DELTA, **how)
        params.update_from_tokenizer(tokenizer)
        for name in self._names:
            asked = EngineCoreRequest(
                name, [1, 2, 3], None, params, None, 0.0, None, None, None, external_req_id=name
            )
            self._processor.add_request(asked, None)
            state = self._processor.request_states[name]
            alternatives = state.logprobs_processor.tokenizer
            deliver_to(EngineRequest(name, [1, 2, 3], params, lambda output: None), state)
            if texts_of_alternatives:
                state.logprobs_processor.tokenizer = alternatives

    def step(self, ids: np.ndarray, logprobs: np.ndarray) -> float:
        """Take one token per request, [requests, k + 1] of alternatives; microseconds of this process for each."""
        from vllm.v1.engine import EngineCoreOutput
        from vllm.v1.outputs import LogprobsLists

        rank = np.ones(1, dtype=np.int32)
        outputs = [
            EngineCoreOutput(name, [int(row[0])], LogprobsLists(row[None], values[None], rank))
            for name, row, values in zip(self._names, ids, logprobs, strict=True)
        ]
        started = time.process_time_ns()
        self._processor.process_outputs(outputs)
        return (time.process_time_ns() - started) / 1e3 / len(outputs)


def host(tokenizer: Any, requests: int, steps: int, done: Callable[[], object], k: int = 20) -> Found:
    """Microseconds per token and request of each way; all see the same random tokens."""
    draw = np.random.default_rng(0)
    ways = {way: Requests(tokenizer, way, requests, k) for way in HOST}
    spent: dict[str, list[float]] = {way: [] for way in HOST}
    for turn in range(steps + 2):  # the first two warm up
        ids = draw.integers(0, len(tokenizer), (requests, k + 1), dtype=np.int32)
        logprobs = np.sort(-draw.exponential(3, (requests, k + 1)).astype(np.float32))[:, ::-1]
        for way, asked in ways.items():
            found = asked.step(ids, logprobs)
            if turn >= 2:
                spent[way].append(found)
        done()
    return {way: {"us": round(statistics.median(found), 1)} for way, found in spent.items()}


# -- order --------------------------------------------------------------------------------------------------------


@contextmanager
def neighbours(client: VLLMClient) -> Iterator[list[float]]:
    """The share of siblings that follow a sibling in the batch, of all that could; one number per step."""
    counters: Any = client._handle.counters
    runner = client._handle._engine.model_executor.driver_worker.worker.model_runner  # type: ignore[attr-defined]
    shares: list[float] = []
    told = counters._recorded

    def look() -> None:
        groups = [tuple(runner.requests[name].prompt_token_ids) for name in runner.input_batch.req_ids]
        if possible := len(groups) - len(set(groups)):
            shares.append(sum(one == other for one, other in pairwise(groups)) / possible)
        told()

    counters._recorded = look
    try:
        yield shares
    finally:
        counters._recorded = told


async def order(client: VLLMClient, groups: int, siblings: int, done: Callable[[], object]) -> Found:
    """Groups asked in one call, in turns: as they come, and as `Batch` arranges them."""
    from vllm import SamplingParams

    found: Found = {}
    chance = random.Random(0)
    params = [
        SamplingParams(temperature=1.0, max_tokens=chance.randrange(6, 14), ignore_eos=True, seed=seed)
        for seed in range(groups * siblings)
    ]
    for way in ("in turns", "side by side"):
        prompts = [client.render(asked) for asked in fresh(QUESTION, groups)]
        mixed = prompts * siblings
        if way == "in turns":
            mixed = [list(ids) for ids in mixed]  # nothing says that they are the same
        before = client.stats()
        with neighbours(client) as shares:
            await Batch(client._handle, mixed, params, [None] * len(mixed)).finish()
        spent = client.stats() - before
        found[way] = {
            "neighbours at first": round(shares[0], 3),
            "neighbours": round(statistics.fmean(shares), 3),
            "cached prompt tokens": spent.cached_prompt_tokens,
            "computed prompt tokens": spent.computed_prompt_tokens,
        }
        done()
    return found


# -- layout -------------------------------------------------------------------------------------------------------

_numbers = count(10_000 + random.randrange(80_000))


def fresh(text: str, n: int) -> list[Prompt]:
    """Prompts that nothing in the prefix cache begins like, all equally long."""
    return [Prompt.of(f"Task {next(_numbers)}. {text}", max_tokens=1, temperature=1.0) for _ in range(n)]


def explorers(question: Prompt, first: bool) -> list[Prompt]:
    """As MARS's agents are asked to solve it; what differs between them first, or last as they are."""
    [message] = question.messages
    asked = [render("mars/explore", strategies=[], how=one.how) for one in APPROACHES]
    if not first:
        return [question.instructed(text) for text in asked]
    same = [text.removesuffix(one.how).rstrip() for text, one in zip(asked, APPROACHES, strict=True)]
    return [
        Prompt.of(f"{one.how}\n\n{message.content}\n\n{text}", max_tokens=1)
        for text, one in zip(same, APPROACHES, strict=True)
    ]


def judges(question: Prompt, first: bool) -> list[Prompt]:
    """The same for agents that read their verdict on one solution."""
    [message] = question.messages
    asked = [(render("mars/judge", lens=one.lens), f"Check {one.lens}.") for one in APPROACHES]
    if not first:
        return [question.then(Message("assistant", SOLUTION), Message("user", text)) for text, _ in asked]
    return [
        Prompt.of(
            [
                Message("user", f"{check}\n\n{message.content}"),
                Message("assistant", SOLUTION),
                Message("user", text.removesuffix(check).rstrip()),
            ]
        )
        for text, check in asked
    ]


async def layout(client: VLLMClient, done: Callable[[], object]) -> Found:
    """Computed prompt tokens of all agents of one step, asked at the same time."""

    async def solve(prompt: Prompt) -> Any:
        return await client.sample(prompt, max_tokens=1)

    async def judge(prompt: Prompt) -> Any:
        return await client.choose(prompt, ("Yes", "No"))

    found: Found = {}
    for step, ask, arranged in (("explore", solve, explorers), ("judge", judge, judges)):
        for way in ("first", "last"):
            [question] = fresh(QUESTION, 1)
            before = client.stats()
            await each(ask, arranged(question, way == "first"))
            spent = client.stats() - before
            found[f"{step}, differences {way}"] = {
                "computed prompt tokens": spent.computed_prompt_tokens,
                "cached prompt tokens": spent.cached_prompt_tokens,
            }
            done()
    return found


# -- all ----------------------------------------------------------------------------------------------------------

PARTS = ("host", "order", "layout")


async def measured(options: argparse.Namespace, done: Callable[[], object]) -> AsyncIterator[tuple[str, Found]]:
    """The parts that are asked for, as they are found."""
    if "host" in options.parts:
        from vllm.tokenizers import get_tokenizer

        yield "host", host(get_tokenizer(model_path(options.settings)), 16, options.steps, done)
    if set(options.parts) == {"host"}:
        return
    async with VLLMClient(options.settings) as client:
        if "order" in options.parts:
            yield "order", await order(client, options.groups, options.siblings, done)
        if "layout" in options.parts:
            yield "layout", await layout(client, done)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--quick", action="store_true", help="few tokens, to see that it runs")
    parser.add_argument("--model", help="path or Hugging Face id; the embedded model if left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args(arguments)
    options.steps, options.groups, options.siblings = (5, 2, 2) if options.quick else (200, 8, 4)
    options.settings = EngineSettings.load(
        model=options.model, handle="inprocess", dtype="float32", max_model_len=1024, kv_cache_gib=1.0
    )
    return options


async def measure(options: argparse.Namespace) -> None:
    """Measure, print, append one record."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    rounds = {"host": options.steps + 2, "order": 2, "layout": 4}
    found: dict[str, Found] = {}
    with progress_bar() as progress:
        bar = progress.add_task("free wins", total=sum(rounds[part] for part in options.parts))
        async for part, rows in measured(options, lambda: progress.advance(bar)):
            found[part] = rows
            progress.console.print(table(part, rows))
    about = {"k": 20, "groups": options.groups, "siblings": options.siblings, "agents": len(APPROACHES)}
    record = {**about, **found, "settings": options.settings.model_dump(mode="json")}
    Console().print(f"record in {append('free_wins', record, options.out)}", soft_wrap=True)


if __name__ == "__main__":
    anyio.run(measure, parse())
