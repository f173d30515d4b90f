"""What a model thinks is not what it answers."""

import pytest

from optillm_local.core.thinking import split_thinking


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("4", False, ("", "4")),
        ("<think>2 + 2</think>\n4", False, ("2 + 2", "4")),
        ("Well. <think>2 + 2</think> 4", False, ("2 + 2", "Well.  4")),
        ("<think></think>4", False, ("", "4")),
        ("2 + 2</think>4", False, ("2 + 2", "4")),
        ("2 + 2</think>4", True, ("2 + 2", "4")),
        ("<think>2 + 2", False, ("2 + 2", "")),
        ("2 + 2", True, ("2 + 2", "")),
        ("", False, ("", "")),
    ],
)
def test_thinking_is_what_stands_in_the_tags_and_unclosed_thinking_has_no_answer(
    text: str, opened: bool, expected: tuple[str, str]
) -> None:
    assert split_thinking(text, opened=opened) == expected
