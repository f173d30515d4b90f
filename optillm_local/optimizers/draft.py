"""Answers that are written in pieces: by the model, and by an optimizer that puts words into its mouth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.errors import BudgetExceeded, NoSolutions, RequestRejected
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.candidates import NOTHING_WRITTEN, candidate
from optillm_local.optimizers.pieces import joined, trimmed

AT_AN_END = (BudgetExceeded, RequestRejected)
"""What keeps a model from writing on that has begun to: the budget is spent, or the context is full."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The beginning of an answer, to go on from by its token ids: what was decoded once is a prefix-cache hit.

    Attributes:
        prompt: what is answered; the answer has its `max_tokens` in all, words put in included.
        client: writes on, and knows the tokens of words that are put in.
        pieces: what there is so far.
        opening: the assistant message that the prompt ends in, if it does: goes before the pieces.
    """

    prompt: Prompt
    client: ModelClient
    pieces: tuple[Completion, ...] = ()
    opening: tuple[Completion, ...] = ()

    @classmethod
    def of(cls, prompt: Prompt, client: ModelClient) -> Self:
        """An empty draft."""
        *before, last = prompt.messages
        if last.role != "assistant" or not before:
            return cls(prompt, client)
        ids = (*last.token_ids, *client.encode(last.appended)) if last.token_ids else ()
        opening = trimmed(Completion(last.content, ids, "stop", TokenUsage()), client)
        return cls(replace(prompt, messages=tuple(before)), client, opening=(opening,))

    @property
    def completion(self) -> Completion:
        """The answer so far, as if it had been sampled in one go."""
        return joined(self.pieces)

    @property
    def tokens(self) -> int:
        """How long it is."""
        return sum(len(piece.token_ids) for piece in self.pieces)

    @property
    def room(self) -> int:
        """How many tokens may follow; below 1 if none."""
        return self.prompt.sampling.max_tokens - self.tokens

    @property
    def is_over(self) -> bool:
        """Whether the model has ended it, or it is as long as it may be, or it was cut off."""
        return self.room < 1 or bool(self.pieces and self.pieces[-1].finish_reason != "length")

    @property
    def is_aborted(self) -> bool:
        """Whether it was cut off: nothing may follow."""
        return bool(self.pieces and self.pieces[-1].finish_reason == "abort")

    def candidate(self, phase: str, **about: Any) -> Solution:
        """It as a candidate, put on the record.

        Raises:
            NoSolutions: the model has said nothing; words put into its mouth do not count.
        """
        if not any(piece.text.strip() for piece in self.pieces if piece.usage.completion):
            raise NoSolutions(NOTHING_WRITTEN)
        return candidate(self.completion, self.prompt, phase, **about)

    def plus(self, text: str) -> Draft:
        """With words put into the model's mouth."""
        ids = self.client.encode(text)
        return self._with(Completion(text, ids, "length", TokenUsage(), (math.nan,) * len(ids), ((),) * len(ids)))

    def then(self, piece: Completion) -> Draft:
        """With what the model wrote next."""
        return self._with(trimmed(piece, self.client))

    def _with(self, piece: Completion) -> Draft:
        return replace(self, pieces=(*self.pieces, piece))

    def asked(self, step: str, *key: object, at_most: int | None = None, **sampling: Any) -> Prompt:
        """The prompt that makes the model write on; a step of the optimizer, as `Prompt.step` has it."""
        so_far = joined((*self.opening, *self.pieces))
        prompt = self.prompt.then(so_far.message()) if so_far.text or so_far.token_ids else self.prompt
        limit = self.room if at_most is None else min(at_most, self.room)
        return prompt.step(step, *key, at_most=max(1, limit), **sampling)

    async def written_on(self, step: str, *key: object, **sampling: Any) -> Draft:
        """With one more piece by the model; cut off if there can be none, where there is a draft already."""
        [draft] = await self.ways_on(1, step, *key, **sampling)
        return draft

    async def ways_on(self, n: int, step: str, *key: object, **sampling: Any) -> list[Draft]:
        """n drafts that go on from this one, written side by side."""
        try:
            pieces = await self.client.sample(self.asked(step, *key, **sampling), n=n)
        except AT_AN_END as why:
            return [self.cut_off(why)]
        return [self.then(piece) for piece in pieces]

    def cut_off(self, why: BudgetExceeded | RequestRejected) -> Draft:
        """Aborted; raises the error that is the reason if the model has written nothing yet."""
        if not any(piece.usage.completion for piece in self.pieces):
            raise why
        return self._with(Completion("", (), "abort", TokenUsage()))
