"""Prompt templates: one file each, under the name of the optimizer that uses it.

What is shared between calls stands first in a template, what differs last, so that the prefix cache serves
the shared part.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("optillm_local", "prompts"),
        undefined=StrictUndefined,  # a missing variable is an error and not an empty text
        keep_trailing_newline=False,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - prompts are plain text, not HTML
    )


def render(template: str, **variables: Any) -> str:
    """The text of `<template>.md.j2` with its variables filled in."""
    return _environment().get_template(f"{template}.md.j2").render(**variables).strip()
