"""When a row of verdicts verifies a solution, and how much confidence the whole evidence gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

WEIGHTS = {"pass_ratio": 0.35, "probability": 0.35, "agreement": 0.2, "likelihood": 0.1}
"""How much each part of a confidence counts: verdicts first, as in the seed (0.7 pass ratio, 0.3 score)."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Rule of the seed: `threshold` passes in a row verify a solution, one confident failure un-marks it.

    A verdict passes if P(CORRECT) > 0.5. A failure that is not confident only breaks the row.
    """

    threshold: int = 2
    confident_failure: float = 0.25

    def is_verified(self, probabilities: Sequence[float]) -> bool:
        """Whether these verdicts, in the order they came in, leave the solution verified."""
        return self._standing(probabilities)[0]

    def is_settled(self, probabilities: Sequence[float], outstanding: int) -> bool:
        """Whether so many further verdicts, whatever they say, leave it as it is."""
        verified, row = self._standing(probabilities)
        return outstanding == 0 or (not verified and row + outstanding < self.threshold)

    def _standing(self, probabilities: Sequence[float]) -> tuple[bool, int]:
        verified, row = False, 0
        for probability in probabilities:
            row = row + 1 if probability > 0.5 else 0
            verified = row >= self.threshold or (verified and probability > self.confident_failure)
        return verified, row


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a run may be of one solution, in [0, 1], and the parts of it; NaN is a part nobody knows.

    confidence = sum of w_k * part_k over the known parts, divided by the sum of their weights w_k (`WEIGHTS`):

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
        """The confidence; NaN if no part is known."""
        known = {name: part for name, part in asdict(self).items() if not math.isnan(part)}
        weight = math.fsum(WEIGHTS[name] for name in known)
        return math.fsum(WEIGHTS[name] * part for name, part in known.items()) / weight if known else math.nan

    def as_dict(self) -> dict[str, float | None]:
        """The parts; None where unknown."""
        return {name: None if math.isnan(part) else part for name, part in asdict(self).items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
