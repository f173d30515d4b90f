"""What an optimizer returns."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from optillm_local.core.completion import Completion


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Solution:
    """One candidate answer, or the answer.

    Attributes:
        answer: the answer as stated; the whole text where none is stated.
        reasoning: the text that led to it.
        agent_id: which agent (sampled sequence) wrote it.
        temperature: it was sampled at.
        token_count: tokens it took to write.
        verification_score: what it was ranked by: P(correct) or share of the vote (0 to 1), or a log-probability
            or confidence where the optimizer was told to rank by these. NaN if nobody judged it.
        is_verified: whether a verifier passed it.
        verification_passes, verification_failures: verdicts for and against.
        phase: the phase of the optimizer that made it.
        parents: ids of the solutions it was made from.
        metadata: what else the optimizer says of it, such as how it was chosen.
        completion: what the agent wrote, with its tokens, so that a conversation can go on from it; not on record.
    """

    answer: str
    reasoning: str = ""
    agent_id: str = "agent-0"
    temperature: float = math.nan
    token_count: int = 0
    verification_score: float = math.nan
    is_verified: bool = False
    verification_passes: int = 0
    verification_failures: int = 0
    phase: str = ""
    parents: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"solution-{uuid.uuid4().hex[:12]}")
    created_at: str = field(default_factory=_now)
    completion: Completion | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, completion: Completion, *, answer: str | None = None, **about: Any) -> Solution:
        """A solution from what one agent wrote; `answer` if it was extracted from it."""
        return cls(
            answer=answer if answer is not None else completion.answer.strip(),
            reasoning=completion.text,
            token_count=completion.usage.completion,
            completion=completion,
            **about,
        )

    def but(self, **changes: Any) -> Solution:
        """A copy with some fields changed, `metadata` merged."""
        if "metadata" in changes:
            changes["metadata"] = {**self.metadata, **changes["metadata"]}
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is not a finite number becomes None, in `metadata` too."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "completion"}


def plain(value: Any) -> Any:
    """For JSON: what is not a finite number becomes None, and a path its text, however deep it stands."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
