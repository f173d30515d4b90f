"""When a row of verdicts verifies a solution, and how much confidence the whole evidence gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

WEIGHTS = {"pass_ratio": 0.35, "probability": 0.35, "agreement": 0.2, "likelihood": 0.1}
"""How much each part of a confidence counts: verdicts first, as in the seed (0.7 pass ratio, 0.3 score)."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Rule of the seed: `threshold` passes in a row verify a solution, one confident failure un-marks it for good.

    A verdict passes if P(CORRECT) > 0.5. A failure that is not confident only breaks the row. The row is that of
    the judges: whose review is the shorter must not matter. None stands for a verdict that is outstanding.
    """

    threshold: int = 2
    confident_failure: float = 0.25

    def is_verified(self, verdicts: Sequence[float | None]) -> bool:
        """Whether the verdicts that are in verify it."""
        return not self._is_refuted(verdicts) and self._longest_row(verdicts, outstanding=0.0) >= self.threshold

    def is_settled(self, verdicts: Sequence[float | None]) -> bool:
        """Whether the outstanding verdicts, whatever they say, leave it as it is."""
        best = self._longest_row(verdicts, outstanding=1.0)
        return None not in verdicts or self._is_refuted(verdicts) or best < self.threshold

    def _is_refuted(self, verdicts: Sequence[float | None]) -> bool:
        return any(one is not None and one <= self.confident_failure for one in verdicts)

    def _longest_row(self, verdicts: Sequence[float | None], outstanding: float) -> int:
        longest, row = 0, 0
        for one in verdicts:
            row = row + 1 if (outstanding if one is None else one) > 0.5 else 0
            longest = max(longest, row)
        return longest


UNKNOWN = 0.5
"""What a part of a confidence counts for while nobody knows it: what is not judged is neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a run may be of one solution, in [0, 1], and the parts of it; NaN is a part nobody knows.

    confidence = sum of w_k * part_k (`WEIGHTS`), where an unknown part counts `UNKNOWN`.

    Attributes:
        pass_ratio: passes / (passes + failures) of its verdicts.
        probability: mean P(CORRECT) over its verdicts.
        agreement: share of the other solutions that state an answer which state the same.
        likelihood: exp(mean log-probability) of its own tokens, the geometric mean of their probabilities.
    """

    pass_ratio: float = math.nan
    probability: float = math.nan
    agreement: float = math.nan
    likelihood: float = math.nan

    @classmethod
    def of(
        cls, probabilities: Sequence[float], choice: int | None, others: Sequence[int | None], mean_logprob: float
    ) -> Confidence:
        """From the verdicts, the class of its answer, the classes of the other answers, and its likelihood."""
        stated = [other for other in others if other is not None]
        return cls(
            _mean([probability > 0.5 for probability in probabilities]),
            _mean(probabilities),
            math.nan if choice is None else _mean([other == choice for other in stated]),
            math.exp(mean_logprob),
        )

    @property
    def value(self) -> float:
        """The confidence."""
        return math.fsum(
            WEIGHTS[name] * (UNKNOWN if math.isnan(part) else part) for name, part in asdict(self).items()
        )

    def as_dict(self) -> dict[str, float | None]:
        """The parts; None where unknown."""
        return {name: None if math.isnan(part) else part for name, part in asdict(self).items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
