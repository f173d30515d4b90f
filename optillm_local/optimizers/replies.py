"""Reading replies that were asked for in a form. A model may not keep to it: nothing here raises."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from optillm_local.answers.code import blocks

_MOST_ATTEMPTS = 64
"""Brackets at which JSON is looked for: a model that is stuck in a loop opens thousands."""

_NUMBERED = re.compile(r"^[ \t]*(?:\*\*)?\d+[.):][ \t]*(\S.*)$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d+[.):])\s+")


def inside(text: str, tag: str) -> str | None:
    """What the last `<tag>` holds that holds anything; up to the end of the text if it is not closed."""
    found = re.findall(rf"<{tag}>(.*?)(?=</{tag}>|<{tag}>|\Z)", text, re.DOTALL | re.IGNORECASE)
    return next((one.strip() for one in reversed(found) if one.strip()), None)


def lines(text: str) -> list[str]:
    """The lines that say something, without bullets and numbers before them."""
    return [line for line in (_BULLET.sub("", one).strip() for one in text.splitlines()) if line]


def numbered(text: str) -> list[str]:
    """The items of a numbered list; what stands around it is left out."""
    return [item.strip() for item in _NUMBERED.findall(text) if item.strip()]


def json_values(text: str) -> Iterator[Any]:
    """The objects and arrays of JSON in a text, outermost and in their order.

    What cannot be written again, as half of a surrogate pair, is left out.
    """
    decoder, position = json.JSONDecoder(), 0
    for bracket in itertools.islice(re.finditer(r"[\[{]", text), _MOST_ATTEMPTS):
        if bracket.start() >= position:
            try:
                value, position = decoder.raw_decode(text, bracket.start())
                json.dumps(value, ensure_ascii=False, indent=2).encode()
            except (ValueError, RecursionError):  # prose in brackets, or nested deeper than anyone would read
                continue
            yield value


def code_in(text: str) -> str:
    """The first fenced block that holds anything; a text without one is code as it is."""
    return next((block.content for block in blocks(text) if block.content.strip()), text.strip())
