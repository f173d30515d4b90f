"""Separates what a model thinks from what it answers."""

from __future__ import annotations

from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Thinking(NamedTuple):
    """The text between the tags and the text after them."""

    reasoning: str
    answer: str


def is_thinking(text: str) -> bool:
    """Whether a text ends inside a thinking tag."""
    return text.rfind(OPEN) > text.rfind(CLOSE)


def split_thinking(text: str, *, opened: bool = False) -> Thinking:
    """Split at the thinking tags.

    Thinking that is never closed has no answer yet. Some templates open the tag in the prompt, so the text
    may begin inside it: pass `opened`, or let a closing tag without an opening one show it.
    """
    before, has_open, after = text.partition(OPEN)
    if not has_open:
        reasoning, has_close, answer = text.partition(CLOSE)
        if has_close or opened:
            return Thinking(reasoning.strip(), answer.strip())
        return Thinking("", text.strip())
    reasoning, _, answer = after.partition(CLOSE)
    return Thinking(reasoning.strip(), (before + answer).strip())
