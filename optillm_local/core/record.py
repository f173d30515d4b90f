"""What every event is made of."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A record of one thing that happened: in which span, and when (Unix seconds)."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    span_id: str = ""
    timestamp: float = Field(default_factory=time.time)


class Usage(BaseModel):
    """Tokens of one call; see `core.usage.TokenUsage`."""

    model_config = ConfigDict(frozen=True)

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    discarded: int = 0
