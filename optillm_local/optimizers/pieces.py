"""Pieces of one answer that was not written in one go: joined, and cut so that it can be written on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.statistics import TokenStatistics
from optillm_local.core.thinking import split_thinking
from optillm_local.core.usage import TokenUsage

_LONGEST_END = 32
"""Tokens at the end of a piece that may be no part of its text: an end token, a stop text."""


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
        statistics=_statistics(pieces),
        reasoning=thinking.reasoning,
        answer=thinking.answer,
        seed=pieces[0].seed,
    )


def _filled(piece: Completion, values: tuple[Any, ...], unknown: Any) -> tuple[Any, ...]:
    return values or (unknown,) * len(piece.token_ids)


def _statistics(pieces: Sequence[Completion]) -> TokenStatistics | None:
    if all(piece.statistics is None for piece in pieces):
        return None
    return TokenStatistics.joined(p.statistics or TokenStatistics.unknown(len(p.token_ids)) for p in pieces)


def trimmed(piece: Completion, client: ModelClient) -> Completion:
    """A piece with the tokens of its text alone, to be written on from: without what ended it.

    Where a token holds both text and the beginning of a stop text, the rest of the text is tokenised anew.
    """
    ids, lead = piece.token_ids, _lead(piece, client)
    for kept in range(len(ids), max(0, len(ids) - _LONGEST_END), -1):
        shown = lead + client.decode(ids[:kept])
        if piece.text.startswith(shown) and client.decode(ids[kept - 1 : kept]):
            return _cut(piece, kept, client.encode(piece.text[len(shown) :]))
    return _cut(piece, 0, client.encode(piece.text))


def beginning(piece: Completion, tokens: int, client: ModelClient) -> Completion:
    """The first tokens of a piece, to be written on from; the others count as discarded."""
    shown = _lead(piece, client) + client.decode(piece.token_ids[:tokens])
    usage = replace(piece.usage, discarded=piece.usage.completion - tokens)
    return replace(_cut(piece, tokens, ()), text=shown, finish_reason="length", usage=usage)


def _lead(piece: Completion, client: ModelClient) -> str:
    """What the text begins with and its decoded tokens do not: some tokenizers drop a leading space."""
    dropped = piece.text.startswith(" ") and not client.decode(piece.token_ids).startswith(" ")
    return " " if dropped else ""


def _cut(piece: Completion, kept: int, others: tuple[int, ...]) -> Completion:
    """The first `kept` tokens, then others whose log-probabilities are not known."""
    return replace(
        piece,
        token_ids=piece.token_ids[:kept] + others,
        logprobs=piece.logprobs and piece.logprobs[:kept] + (math.nan,) * len(others),
        top_logprobs=piece.top_logprobs and piece.top_logprobs[:kept] + ((),) * len(others),
        statistics=piece.statistics
        and TokenStatistics.joined([piece.statistics[:kept], TokenStatistics.unknown(len(others))]),
    )
