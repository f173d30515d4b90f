"""Answers that no model should write: the time limit of a test is what they must keep to."""

from functools import partial

import anyio
import pytest

from optillm_local.answers import equivalence_classes, extract_answer, normalize

MEGABYTE = 1 << 20
LOOPS = [r"\boxed{", "(", "9^", '{"answer":', "```", "```\n"]
PIECES = [
    *(r"\boxed{1}", "{", "[", "9", "1,", "-", "$", r"\(", r"\frac{1}{", " ", "\n", "*", "the "),
    *('"answer": "', '"answer": 1,', '"answer": [[1],', "<answer>", "#### 1\n", "Answer: ", "answer to "),
    *("~~~\n", "answer:\n```\n", "```\nx = f(1)\n```\n", "<think>", "(B) ", "best choice: ", "1. "),
    *("def f():\n  pass\n", "lambda: ", ";\n", "'''", "\0", "\ud800"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("piece", "size"),
    [(loop, MEGABYTE) for loop in LOOPS] + [(piece, MEGABYTE // 16) for piece in PIECES],
    ids=lambda value: ascii(value)[:20],
)
def test_a_model_that_repeats_itself(piece: str, size: int) -> None:
    text = piece * (size // len(piece))
    extract_answer(text)
    extract_answer(text, deliberate=True)
    normalize(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("count", [99, 10_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [(r"\boxed{", "}"), ("(", ")"), (r"\text{", "}"), ("[", "]"), ('"', '"')]
)
def test_deep_nesting_ends(opening: str, closing: str, count: int) -> None:
    text = opening * count + "5" + closing * count
    extract_answer(text)
    extract_answer(f'{{"answer": {text}}}')
    normalize(f"x\n{text}")


@pytest.mark.timeout(60)
def test_formulas_that_explode_are_only_equal_to_themselves() -> None:
    bombs = ["(10^{10})!", "x^{10^9}(x+1)^{10^7}", "9^" * 400_000 + "9"]
    answers = ["2", r"\sqrt{4}", *bombs, *bombs]
    assert anyio.run(partial(equivalence_classes, answers, timeout_s=1.0)) == [0, 0, 1, 2, 3, 1, 2, 3]
