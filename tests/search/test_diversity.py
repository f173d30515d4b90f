"""Telling texts apart by their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.search import word_overlap

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
