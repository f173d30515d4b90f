"""How an optimizer declares its options."""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def optimizer_options(kind: type[T]) -> type[T]:
    """Class decorator: the annotated fields become validated, frozen, keyword-only options."""
    made: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(kind)
    found: type[T] = made
    return found
