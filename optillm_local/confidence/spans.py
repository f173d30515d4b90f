"""Where in a completion's tokens its answer stands."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from optillm_local.answers import extract_answer
from optillm_local.confidence.measures import answer_span
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion


def answer_tokens(path: Completion, client: ModelClient) -> slice:
    """The tokens of the stated answer, where it stands last; all tokens if none is stated, or it is nowhere.

    Raises:
        Unsupported: the client cannot decode token ids.
    """
    stated = extract_answer(path.text)
    place = answer_span(path.text, stated) if stated else None
    return _tokens_at(place, path, client) if place else slice(None)


def _tokens_at(place: tuple[int, int], path: Completion, client: ModelClient) -> slice:
    """The tokens that have a character of the span; found by bisection over decoded prefixes."""
    lengths = range(len(path.token_ids) + 1)

    def shown(tokens: int) -> int:
        return len(client.decode(path.token_ids[:tokens]))

    start, end = place
    first = bisect_right(lengths, start, key=shown) - 1
    return slice(first, max(first + 1, bisect_left(lengths, end, key=shown)))
