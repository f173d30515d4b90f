"""From a request that has been checked to what answers it: the model itself, or an optimizer once per choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from optillm_local.answers import extract_answer
from optillm_local.core.budget import Budget, Meter
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion, OutputTextDelta
from optillm_local.core.concurrency import each
from optillm_local.core.events import Sink
from optillm_local.core.generation import AT_THE_END, EVERY_TOKEN
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import open_run
from optillm_local.core.thinking import split_thinking
from optillm_local.core.usage import TokenUsage
from optillm_local.openai.approach import NONE
from optillm_local.openai.response import Answer, Outcome
from optillm_local.optimizers.sampled_by import as_completion
from optillm_local.registry import options_as_dict
from optillm_local.run import Result, asolve


@dataclass(frozen=True, slots=True)
class Call:
    """One prompt per choice, the optimizer that answers them, if any, and limits on all of them together."""

    prompts: Sequence[Prompt]
    optimizer: Optimizer | None
    budget: Budget


class Reader(Protocol):
    """Who reads choices as they are made."""

    def said(self, index: int, delta: OutputTextDelta) -> None:
        """The model itself goes on with a choice."""

    def answered(self, index: int, answer: Answer) -> None:
        """A choice is whole."""

    def watchers(self, index: int) -> Sequence[Sink]:
        """Who watches the run of an optimizer that makes a choice."""


async def answered(
    call: Call, client: ModelClient, sinks: Sequence[Sink] = (), reader: Reader | None = None
) -> Outcome:
    """Answer a call; its choices are made side by side, in the model's one batch."""
    started, before = client.clock(), client.stats()
    meter = Meter(call.budget, started)
    if call.optimizer:
        answers, usage = await _solved(call.optimizer, call.prompts, client, meter, sinks, reader)
    else:
        answers, usage = await _sampled(call.prompts, client, meter, sinks, reader)
    return Outcome(
        answers,
        usage,
        {
            "optimizer": call.optimizer.name if call.optimizer else NONE,
            "options": dict(options_as_dict(call.optimizer)) if call.optimizer else {},
            "engine_steps": (client.stats() - before).steps,
            "budget_exhausted": meter.exhausted,
            "duration_s": round(client.clock() - started, 3),
        },
    )


async def _sampled(
    prompts: Sequence[Prompt], client: ModelClient, meter: Meter, sinks: Sequence[Sink], reader: Reader | None
) -> tuple[list[Answer], TokenUsage]:
    answers: dict[int, Answer] = {}
    with open_run([*sinks, *(reader.watchers(0) if reader else ())], (), meter) as run:
        async with client.generate(prompts, report_every=EVERY_TOKEN if reader else AT_THE_END) as group:
            async for index, event in group:
                if isinstance(event, Completed):
                    answers[index] = _of_model(event.completion)
                    if reader:
                        reader.answered(index, answers[index])
                elif reader:
                    reader.said(index, event)
    return [answers[index] for index in range(len(prompts))], run.usage


async def _solved(
    optimizer: Optimizer,
    prompts: Sequence[Prompt],
    client: ModelClient,
    meter: Meter,
    sinks: Sequence[Sink],
    reader: Reader | None,
) -> tuple[list[Answer], TokenUsage]:
    async def solve(index: int) -> Result:
        watchers = reader.watchers(index) if reader else ()
        result = await asolve(prompts[index], optimizer, client=client, sinks=sinks, watchers=watchers)
        if reader:
            reader.answered(index, _of_optimizer(result))
        return result

    with open_run(meter=meter):  # the limits hold for all choices together
        results = await each(solve, range(len(prompts)))
    usage = sum((result.usage for result in results), start=TokenUsage())
    return [_of_optimizer(result) for result in results], usage


def _of_model(completion: Completion) -> Answer:
    return Answer(completion, {"seed": completion.seed})


def _of_optimizer(result: Result) -> Answer:
    solution = result.solution
    about: dict[str, Any] = {
        "selection": result.selection,
        "answer": solution.answer,
        "verification_score": solution.verification_score,
        "is_verified": solution.is_verified,
        "solutions": len(result.solutions),
        "seed": result.seed,
    }
    said = as_completion(solution)
    return Answer(replace(said, answer=_shown(solution, said)), about)


def _shown(solution: Solution, said: Completion) -> str:
    """The reply that states the answer, without thoughts; the answer alone where a reply in parts holds it."""
    wrote = solution.completion
    whole = wrote.answer if wrote and wrote.text == said.text else split_thinking(said.text).answer
    is_stated = "<output>" not in whole and extract_answer(said.text) == solution.answer
    return whole if whole and is_stated else solution.answer
