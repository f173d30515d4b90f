"""How an optimizer or a scorer declares its options."""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def frozen_options(kind: type[T]) -> type[T]:
    """Class decorator: the annotated fields become validated, frozen, keyword-only options."""
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made: Any = dataclass(frozen=True, kw_only=True, config=config)(kind)
    found: type[T] = made
    return found
