"""Reading what was asked for in a form takes what is there and never raises."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.optimizers import replies


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<a>1</a><a>2</a>", "2"),
        ("<a>1</a> <a> </a>", "1"),
        ("<a> to the end", "to the end"),
        ("<A>1</A>", "1"),
        ("<a><a>1</a></a>", "1"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_tag_that_holds_something_counts(text: str, found: str | None) -> None:
    assert replies.inside(text, "a") == found


def test_lists_lose_their_numbers_and_bullets() -> None:
    text = "1. one\n 2) two\n\n- three\n* four\nfive\n3.5 is six\n"
    assert replies.lines(text) == ["one", "two", "three", "four", "five", "3.5 is six"]
    assert replies.numbered("1.\n 2. b") == ["b"]
    assert replies.numbered("Sure:\n1. one\n2) **two**\nso far") == ["one", "**two**"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('Well [a] then {"b": [1, 2]} and [3]', [{"b": [1, 2]}, [3]]),
        ("```json\n[1]\n```", [[1]]),
        ("{'a': 1} [1,]", []),
        ('["\\ud83d"] ["\\ud83d\\ude00"]', [["\U0001f600"]]),
        ("[" * 10_000, []),
        ('{"a":' * 10_000, []),
    ],
)
def test_json_is_found_in_prose(text: str, values: list[Any]) -> None:
    assert list(replies.json_values(text)) == values


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("So:\n```c++\nint x;\n```\nand\n```\ny\n```", "int x;"),
        ("```python 3\nx = 1", "x = 1"),
        ("```\n```\n x = 1 ", "```\n```\n x = 1"),
        (" x = 1 ", "x = 1"),
    ],
)
def test_code_is_the_first_block_that_holds_some(text: str, code: str) -> None:
    assert replies.code_in(text) == code


@given(st.text(alphabet='<>/a[]{}",:1.-*` \n'))
def test_no_text_breaks_a_reader(text: str) -> None:
    replies.inside(text, "a"), replies.lines(text), replies.numbered(text), replies.code_in(text)
    list(replies.json_values(text))
