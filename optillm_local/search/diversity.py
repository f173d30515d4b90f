"""Telling texts apart by their words."""

from __future__ import annotations

from collections.abc import Sequence

SAME = 0.7
"""Overlap above which codelion's rStar takes two continuations for the same one."""

_PUNCTUATION = ".,;:!?\"'()[]*_`"


def word_overlap(one: str, other: str) -> float:
    """Jaccard index of the words of two texts: shared words / all words, 0 to 1.

    Case and punctuation around a word do not count. Two texts without any word are the same: 1.
    """
    return _jaccard(_words(one), _words(other))


def dedupe(texts: Sequence[str], threshold: float = SAME) -> list[int]:
    """Indices of the texts that overlap no earlier kept one by more than `threshold`."""
    kept: dict[int, frozenset[str]] = {}
    for index, words in enumerate(map(_words, texts)):
        if all(_jaccard(words, earlier) <= threshold for earlier in kept.values()):
            kept[index] = words
    return list(kept)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip(_PUNCTUATION) for word in text.casefold().split()) - {""}


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0
