"""Laws of answers: what holds for every text, and for every spelling of an answer."""

from collections.abc import Sequence
from fractions import Fraction
from random import Random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optillm_local.answers import equivalence_classes, extract_answer, normalize

untimed = settings(deadline=None)

# No word of these letters is an article, a scale or a unit.
WORDS = st.lists(st.text("bcdelmnorstuvxyz", min_size=2, max_size=10), min_size=1, max_size=3).map(" ".join)
NUMBERS = (
    st.integers().map(str) | st.fractions(max_denominator=999).map(str) | st.floats(0, 1e9).map("{:,.2f}".format)
)
LETTERS = st.sampled_from("ABCDEFGHIJ")
FORMULAS = st.sampled_from([r"\frac{1}{\sqrt{2}}", "x^2 + 1", r"2\pi r", r"\{1, 2\}", "y = 2x", "(1, 2)", "3!"])
PIECES = st.sampled_from(
    [
        *(r"\boxed{", "}", "{", "<answer>", "</answer>", "#### ", "Answer:", "The answer is ", '{"answer": ', '"'),
        *("```", "\n", "```python\n", "<think>", "</think>", "$", r"\(", r"\)", r"\frac{1}{2}", "12", "B", "(B)"),
        *("the", " ", "-", ".", "x", "def f(x):\n", "    return ", "; ", "f(x)", "1, 234", r"\text{", "%"),
        *("^", "=", "km", "\u2212", "\ud800", "\0"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join)

STATEMENTS = [
    "The answer is {}.",
    r"So \boxed{{{}}}.",
    "<answer>{}</answer>",
    "Answer:\n```\n{}\n```",
    '{{"answer": "{}"}}',
]
WRAPPERS = [
    "{}.",
    " {} ",
    "**{}**",
    "${}$",
    '"{}"',
    r"\({}\)",
    r"\text{{{}}}",
    "`{}`",
    "```\n{}\n```",
    r"\boxed{{{}}}",
]


@pytest.mark.parametrize("statement", STATEMENTS)
@untimed
@given(answer=WORDS | NUMBERS | LETTERS | FORMULAS)
def test_what_is_stated_is_extracted(statement: str, answer: str) -> None:
    text = statement.format(answer)
    assert extract_answer(text) == extract_answer(text, deliberate=True) == answer


@untimed
@given(WORDS | NUMBERS | LETTERS | FORMULAS)
def test_an_answer_is_its_own_statement(answer: str) -> None:
    found = extract_answer(answer)
    assert found is not None
    assert extract_answer(found) == found


@untimed
@given(TEXTS)
def test_every_text_has_an_answer_or_none(text: str) -> None:
    marked = extract_answer(text, deliberate=True)
    assert marked is None or (marked and extract_answer(text) == marked)
    assert extract_answer(text) != ""


@untimed
@given(TEXTS)
def test_the_form_of_a_form_is_itself(text: str) -> None:
    form = normalize(text)
    assert normalize(form) == form


@pytest.mark.parametrize("wrapper", WRAPPERS)
@untimed
@given(answer=WORDS | NUMBERS | LETTERS | FORMULAS)
def test_wrapping_changes_no_answer(wrapper: str, answer: str) -> None:
    assert normalize(wrapper.format(answer)) == normalize(answer)


@untimed
@given(
    st.fractions(max_denominator=999),
    st.integers(1, 9),
    st.sampled_from(["", " km", "%", r"\text{ cm}", " dollars"]),
)
def test_numbers_are_equal_by_value(value: Fraction, factor: int, unit: str) -> None:
    expanded = rf"\frac{{{value.numerator * factor}}}{{{value.denominator * factor}}}{unit}"
    assert normalize(expanded) == normalize(str(value))


@settings(max_examples=25, deadline=None)  # each starts event loops
@given(st.lists(WORDS | NUMBERS | LETTERS, max_size=8), st.randoms(use_true_random=False))
def test_sameness_of_numbers_and_words_depends_on_no_order(answers: list[str], random: Random) -> None:
    answers = [*answers, *answers]
    order = random.sample(range(len(answers)), len(answers))
    shuffled = partition([answers[index] for index in order])
    assert {frozenset(order[index] for index in same) for same in shuffled} == partition(answers)
    assert len(partition(answers)) == len({normalize(answer) for answer in answers})


def partition(answers: Sequence[str]) -> set[frozenset[int]]:
    classes = anyio.run(equivalence_classes, answers)
    return {frozenset(index for index, of in enumerate(classes) if of == same) for same in classes}
