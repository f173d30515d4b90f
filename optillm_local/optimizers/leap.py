"""LEAP: learn principles from mistakes in the question's own examples, then answer with them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from optillm_local.answers import equivalence_classes
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import ask, asking, first_whole, said, selected, written
from optillm_local.optimizers.replies import inside, json_values, lines
from optillm_local.prompts import render

MOST_EXAMPLES = 16
"""Examples that are learned from: a model that is stuck in a loop lists thousands."""


@frozen_options
class LearningPrinciples(Optimizer):
    """Solves the examples in the question wrongly on purpose, and learns from each mistake what to keep in mind.

    All mistakes are made side by side, and each lesson is drawn once its mistake is there. The lessons become a
    short list of principles, with which the question is answered. Without examples, or if every mistake turns out
    right, there is nothing to learn and the question is simply answered. Temperature and number of principles are
    codelion's optillm's; it compares answers by their letters, ours by their meaning.
    """

    name: ClassVar[str] = "leap"
    description: ClassVar[str] = "principles learned from mistakes in the question's examples"
    source: ClassVar[str] = "Zhang et al., In-Context Principle Learning from Mistakes, 2024"

    principles: int = Field(default=8, ge=1, le=64, description="most principles to keep in mind")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the mistakes")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        listing = await ask(prompt.instructed(render("leap/examples")).step("examples"), client)
        examples = _examples(listing)[:MOST_EXAMPLES]
        found = await each(lambda job: self._lesson(*job, prompt, client), enumerate(examples))
        principles = await self._principles([one for one in found if one], prompt, client)
        asked = prompt.instructed(render("leap/apply", principles=principles)) if principles else prompt
        how = f"answered with {len(principles)} principles from {len(examples)} examples"
        return selected(first_whole([await written(asked.step("apply"), client)]), how)

    async def _lesson(self, number: int, example: _Example, prompt: Prompt, client: ModelClient) -> str | None:
        """What the mistake in one example teaches; None if there is none."""
        asked = asking(prompt, render("leap/mistake", question=example.question))
        wrong = await ask(asked.step("mistake", number, temperature=self.temperature), client)
        answer = inside(wrong.answer, "output")
        if not answer or await _are_equal(answer, example.answer):
            return None
        told = render(
            "leap/principle",
            question=example.question,
            solution=said(wrong),
            answer=answer,
            correct=example.answer,
        )
        return inside((await ask(asking(prompt, told).step("principle", number), client)).answer, "output")

    async def _principles(self, lessons: list[str], prompt: Prompt, client: ModelClient) -> list[str]:
        """The lessons in short; as they are if the model does not list principles."""
        if not lessons:
            return []
        told = prompt.instructed(render("leap/principles", lessons=lessons, most=self.principles))
        listed = lines(inside((await ask(told.step("principles"), client)).answer, "output") or "")
        return (listed or lessons)[: self.principles]


@dataclass(frozen=True, slots=True)
class _Example:
    question: str
    answer: str


def _examples(listing: Completion) -> list[_Example]:
    """The objects of an array, or of one that is cut off; those that lack a question or an answer are left out."""
    found = json_values(inside(listing.answer, "output") or listing.answer)
    listed = itertools.chain.from_iterable(one if isinstance(one, list) else [one] for one in found)
    entries = [one for one in listed if isinstance(one, dict)]
    fields = [(str(one.get("question", "")).strip(), str(one.get("answer", "")).strip()) for one in entries]
    return [_Example(question, answer) for question, answer in fields if question and answer]


async def _are_equal(one: str, other: str) -> bool:
    first, second = await equivalence_classes([one, other])
    return first == second
