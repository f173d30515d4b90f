"""How an optimizer declares its options."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

optimizer_options = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
"""Class decorator: the annotated fields become validated, frozen, keyword-only options."""
