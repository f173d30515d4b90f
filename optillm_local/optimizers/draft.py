"""Answers that are written in pieces: by the model, and by an optimizer that puts words into its mouth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.errors import BudgetExceeded, RequestRejected
from optillm_local.core.prompt import Prompt
from optillm_local.core.thinking import split_thinking
from optillm_local.core.usage import TokenUsage

AT_AN_END = (BudgetExceeded, RequestRejected)
"""What keeps a model from writing on that has begun to: the budget is spent, or the context is full."""

_LONGEST_END = 32
"""Tokens at the end of a piece that may be no part of its text: an end token, a stop text."""


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


def joined(pieces: Sequence[Completion]) -> Completion:
    """Successive pieces of one answer as one completion.

    Usages add up; what the log-probabilities of a piece do not say is NaN. It ends as the last piece does.
    """
    if not pieces:
        return Completion("", (), "stop", TokenUsage())
    text = "".join(piece.text for piece in pieces)
    thinking = split_thinking(text, opened=any(piece.reasoning for piece in pieces))
    known, listed = any(piece.logprobs for piece in pieces), any(piece.top_logprobs for piece in pieces)
    return Completion(
        text=text,
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        finish_reason=pieces[-1].finish_reason,
        usage=sum((piece.usage for piece in pieces), start=TokenUsage()),
        logprobs=tuple(one for piece in pieces for one in _filled(piece, piece.logprobs, math.nan) if known),
        top_logprobs=tuple(one for piece in pieces for one in _filled(piece, piece.top_logprobs, ()) if listed),
        reasoning=thinking.reasoning,
        answer=thinking.answer,
        seed=pieces[0].seed,
    )


def _filled(piece: Completion, values: tuple[Any, ...], unknown: Any) -> tuple[Any, ...]:
    return values or (unknown,) * len(piece.token_ids)


def trimmed(piece: Completion, client: ModelClient) -> Completion:
    """A piece with the tokens of its text alone, to be written on from: without what ended it.

    Where a token holds both text and the beginning of a stop text, the rest of the text is tokenised anew.
    """
    ids, text = piece.token_ids, piece.text.lstrip()
    for kept in range(len(ids), max(0, len(ids) - _LONGEST_END), -1):
        shown = client.decode(ids[:kept]).lstrip()  # some tokenizers drop a leading space
        if text.startswith(shown) and client.decode(ids[kept - 1 : kept]):
            return _cut(piece, kept, client.encode(text[len(shown) :]))
    return _cut(piece, 0, client.encode(piece.text))


def beginning(piece: Completion, tokens: int, client: ModelClient) -> Completion:
    """The first tokens of a piece, to be written on from; the others count as discarded."""
    lead = len(piece.text) - len(piece.text.lstrip())  # some tokenizers drop it
    shown = lead + len(client.decode(piece.token_ids[:tokens]).lstrip())
    usage = replace(piece.usage, discarded=piece.usage.completion - tokens)
    return replace(_cut(piece, tokens, ()), text=piece.text[:shown], finish_reason="length", usage=usage)


def _cut(piece: Completion, kept: int, others: tuple[int, ...]) -> Completion:
    """The first `kept` tokens, then others whose log-probabilities are not known."""
    return replace(
        piece,
        token_ids=piece.token_ids[:kept] + others,
        logprobs=piece.logprobs and piece.logprobs[:kept] + (math.nan,) * len(others),
        top_logprobs=piece.top_logprobs and piece.top_logprobs[:kept] + ((),) * len(others),
    )
