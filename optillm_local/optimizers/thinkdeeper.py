"""Budget forcing: the model thinks at least so long and at most so long, then answers."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.core.thinking import CLOSE, OPEN
from optillm_local.optimizers.candidates import selected
from optillm_local.optimizers.draft import Draft

LEAST = 0.1
"""Share of max_tokens that is thought at least."""


class Effort(NamedTuple):
    """How long is thought at most: a share of max_tokens, and how often a thought is taken up again."""

    most: float
    thoughts: int


EFFORTS = {"low": Effort(0.33, 64), "medium": Effort(0.66, 256), "high": Effort(0.9, 512)}
"""As codelion's optillm has them."""

Phrases = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


@frozen_options
class ThinkDeeper(Optimizer):
    """Force how long the model thinks before it answers.

    The thought is opened for the model, also for one that does not think by itself. Where it ends too early, the
    end is left out and a word such as "Wait," is put in its place, by turns, and the model thinks on; at the limit
    the thought is closed and the answer begins. Each time the model goes on from the token ids so far, which the
    prefix cache holds; so each of these calls waits for the one before.

    codelion's optillm decodes one token at a time in Python, untempered, and without a limit behind the thought.
    Here the prompt's sampling applies, and its max_tokens is for thought, tags and answer together; where it has
    no room for a thought, there is none. A word that does not fit into the limit is not put in: the thought ends,
    even if too early. Thoughts are counted where we put a word in, not where the model says one by itself.
    """

    name: ClassVar[str] = "thinkdeeper"
    description: ClassVar[str] = "one answer after a thought of a forced length"
    source: ClassVar[str] = "Muennighoff et al., s1: Simple test-time scaling, 2025; optillm thinkdeeper"

    effort: Literal["low", "medium", "high"] = Field(
        default="low", description="think up to 33, 66 or 90 % of max_tokens, and 64, 256 or 512 times"
    )
    min_thinking: int | None = Field(
        default=None, ge=0, description="tokens to think at least; by default 10 % of max_tokens"
    )
    max_thinking: int | None = Field(
        default=None, ge=0, description="tokens to think at most, 90 % of max_tokens or less; by default by effort"
    )
    max_thoughts: int | None = Field(
        default=None, ge=1, description="how often at most a thought is begun; by default by effort"
    )
    phrases: Phrases = Field(
        default=("Wait,", "Alternatively,", "However,", "Additionally,"),
        description="put in the place of an end that comes too early, by turns",
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        with span("think"):
            draft, about = await self._think(Draft.of(Prompt.of(query), client))
        if not draft.is_aborted:
            with span("answer"):
                draft = await draft.written_on("answer")
        return selected(draft.candidate("answer"), "the only completion", **about)

    async def _think(self, empty: Draft) -> tuple[Draft, dict[str, int]]:
        """The thought, closed unless it was cut off, and how long it is; none if there is no room for one."""
        draft = opened = empty.plus(f"{OPEN}\n")
        room = opened.room - len(empty.client.encode(f"\n{CLOSE}\n\n")) - 1  # the answer has one token at least
        if room < 0:
            return empty, {"thinking_tokens": 0, "thoughts": 0}
        least, most = (opened.tokens + limit for limit in self._limits(empty.room, room))
        phrases, thoughts = itertools.cycle(self.phrases), 0
        while thoughts < (self.max_thoughts or EFFORTS[self.effort].thoughts):
            begun = _on_a_new_line(draft, next(phrases)) if thoughts else draft
            if begun.tokens >= most:
                break
            draft = await begun.written_on("think", thoughts, at_most=most - begun.tokens, stop=(CLOSE,))
            thoughts += 1
            if draft.tokens >= least or draft.is_aborted:
                break
        about = {"thinking_tokens": draft.tokens - opened.tokens, "thoughts": thoughts}
        return draft if draft.is_aborted else _on_a_new_line(draft, f"{CLOSE}\n\n"), about

    def _limits(self, max_tokens: int, room: int) -> tuple[int, int]:
        """Tokens of thinking, at least and at most."""
        share = EFFORTS[self.effort].most
        most = int(share * max_tokens) if self.max_thinking is None else self.max_thinking
        most = min(most, int(EFFORTS["high"].most * max_tokens), room)
        least = int(LEAST * max_tokens) if self.min_thinking is None else self.min_thinking
        return min(least, most), most


def _on_a_new_line(draft: Draft, text: str) -> Draft:
    return draft.plus(text if draft.completion.text.endswith("\n") else f"\n{text}")
