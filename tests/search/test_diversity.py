"""Telling texts apart by their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.search import dedupe, word_overlap

TEXTS = st.lists(st.sampled_from(["one", "two,", "Three", "four.", "..."]), max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("The answer is 4.", "the **answer** is (4)", 1),
        ("a b c", "b c d", 0.5),
        ("a a a b", "a b", 1),
        ("it is -3", "it is 3", 0.5),
        ("it is 3.5", "it is 35", 0.5),
        ("", "...", 1),
        ("", "a", 0),
    ],
)
def test_overlap_is_shared_words_of_all_words(one: str, other: str, overlap: float) -> None:
    assert word_overlap(one, other) == overlap


@given(TEXTS, TEXTS)
def test_overlap_is_symmetric_and_whole_with_itself(one: str, other: str) -> None:
    assert 0 <= word_overlap(one, other) == word_overlap(other, one) <= word_overlap(one, one) == 1


@given(st.lists(TEXTS, max_size=8), st.sampled_from([0.0, 0.5, 0.7, 0.99]))
def test_what_is_left_is_different_and_what_is_not_is_like_something_left(texts: list[str], most: float) -> None:
    kept = dedupe(texts, most)
    assert kept == sorted(kept)
    assert all(word_overlap(texts[i], texts[j]) <= most for i in kept for j in kept if i < j)
    gone = set(range(len(texts))) - set(kept)
    assert all(any(word_overlap(texts[i], texts[j]) > most for j in kept if j < i) for i in gone)


def test_the_first_of_the_same_stays() -> None:
    assert dedupe(["x is 4", "no idea", "X is 4.", "x is 5"]) == [0, 1, 3]
