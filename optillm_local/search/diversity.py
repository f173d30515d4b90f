"""Telling texts apart by their words."""

from __future__ import annotations

SAME = 0.7
"""Overlap above which codelion's rStar takes two continuations for the same one."""

_PUNCTUATION = ".,;:!?\"'()[]*_`"


def word_overlap(one: str, other: str) -> float:
    """Jaccard index of the words of two texts: shared words / all words, 0 to 1.

    Case and punctuation around a word do not count. Two texts without any word are the same: 1.
    """
    ours, theirs = _words(one), _words(other)
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip(_PUNCTUATION) for word in text.casefold().split()) - {""}
