"""Limits on what a run may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits; None is unlimited.

    Attributes:
        tokens: generated tokens, discarded ones included. Sequences that decode side by side report every
            8 tokens and stop a step later, so a group of n may overshoot by up to 9 n.
        seconds: time on the client's clock.
    """

    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        tokens, seconds = self.tokens, self.seconds
        if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
            raise InvalidConfiguration("budget tokens", tokens, "must be a whole number of at least 1")
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise InvalidConfiguration("budget seconds", seconds, "must be a finite number above 0")


@dataclass(slots=True)
class Meter:
    """What has been spent of a budget since `started` (seconds on the client's clock)."""

    budget: Budget
    started: float
    tokens: int = 0
    exhausted: bool = field(default=False)

    def add(self, tokens: int) -> None:
        """Count generated tokens as they decode."""
        self.tokens += tokens

    def remaining_tokens(self) -> int | None:
        """Tokens left, at least 0; None if unlimited."""
        return None if self.budget.tokens is None else max(0, self.budget.tokens - self.tokens)

    def remaining_seconds(self, now: float) -> float:
        """Seconds left, at least 0; infinite if unlimited."""
        if self.budget.seconds is None:
            return math.inf
        return max(0.0, self.started + self.budget.seconds - now)

    def spent(self, now: float) -> bool:
        """Whether a limit is reached; remembers that it was."""
        if self.remaining_tokens() == 0 or self.remaining_seconds(now) == 0:
            self.exhausted = True
        return self.exhausted

    def check(self, now: float) -> None:
        """Raises BudgetExceeded if a limit is reached."""
        if not self.spent(now):
            return
        if self.remaining_tokens() == 0:
            raise BudgetExceeded("tokens", self.tokens, self.budget.tokens or 0)
        raise BudgetExceeded("seconds", now - self.started, self.budget.seconds or 0)
