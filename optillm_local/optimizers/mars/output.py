"""What a MARS run returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optillm_local.answers import equivalence_classes
from optillm_local.core.solution import Solution, plain
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.mars.workspace import Verification

SelectionMethod = Literal["verified_majority", "best_verified", "synthesized", "best_confidence"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How good the verdicts were, against a reference answer.

    Attributes:
        verdicts: how many there were.
        right: of these, those whose P(CORRECT) lay on the right side of 0.5.
        brier: mean squared distance of P(CORRECT) from the truth, 0 to 1; less is better.
    """

    verdicts: int
    right: int
    brier: float

    @property
    def accuracy(self) -> float:
        """Share of right verdicts; NaN without any."""
        return self.right / self.verdicts if self.verdicts else math.nan

    @classmethod
    async def of(
        cls, solutions: Sequence[Solution], verifications: Sequence[Verification], reference: str
    ) -> Calibration:
        """Compare the verdicts with the truth."""
        reference_class, *classes = await equivalence_classes([reference, *(one.answer for one in solutions)])
        is_right = {one.id: found == reference_class for one, found in zip(solutions, classes, strict=True)}
        pairs = [(one.probability, is_right[one.solution_id]) for one in verifications]
        right = sum((probability > 0.5) == truth for probability, truth in pairs)
        errors = math.fsum((probability - truth) ** 2 for probability, truth in pairs)
        return cls(len(pairs), right, errors / len(pairs) if pairs else math.nan)


@dataclass(frozen=True, slots=True)
class Quality:
    """The run in numbers.

    Attributes:
        solutions, verified, distinct_answers: counts.
        agreement: share of the solutions that state an answer which state the selected one.
        mean_probability: mean P(CORRECT) over all verdicts; NaN without any.
        is_verified: whether the selected solution is.
        confidence: its own; see `consensus.Confidence`.
        failures: steps that failed.
    """

    solutions: int
    verified: int
    distinct_answers: int
    agreement: float
    mean_probability: float
    is_verified: bool
    confidence: float
    failures: int

    @property
    def assessment(self) -> Literal["high", "medium", "low"]:
        """In a word: high is a verified answer of confidence 0.75 or more, low one of 0.5 or less or no answer."""
        if self.is_verified and self.confidence >= 0.75:
            return "high"
        return "medium" if self.confidence > 0.5 and self.agreement else "low"


@dataclass(frozen=True, slots=True)
class MarsOutput:
    """The result of a MARS run.

    Attributes:
        solution: the selected one; its metadata hold this output as a dict, under `mars`.
        all_solutions: every candidate, in the order they were made.
        verifications: every verdict, in the order they came in.
        selection_method: how it was selected; `selection` says it in words.
        iterations: rounds of improvement.
        usage_by_phase, usage_by_agent, usage_by_purpose: each adds up to `usage`.
        failures: what failed on the way, in words.
        strategies: techniques that the agents were shown, and those that were extracted.
        seed: repeats the run, as far as the model's engine is deterministic.
        text: the answer behind the reasoning in <think> tags, or alone: `use_thinking_tags`.
    """

    solution: Solution
    all_solutions: Sequence[Solution]
    verifications: Sequence[Verification]
    selection_method: SelectionMethod
    selection: str
    iterations: int
    quality: Quality
    usage: TokenUsage
    usage_by_phase: Mapping[str, TokenUsage]
    usage_by_agent: Mapping[str, TokenUsage]
    usage_by_purpose: Mapping[str, TokenUsage]
    failures: Sequence[str]
    strategies: Mapping[str, Sequence[str]]
    calibration: Calibration | None
    is_lightweight: bool
    budget_exhausted: bool
    timed_out: bool
    seed: int | None
    text: str
    completed_at: str

    @property
    def answer(self) -> str:
        """The final answer."""
        return self.solution.answer

    @property
    def reasoning(self) -> str:
        """The text that led to it."""
        return self.solution.reasoning

    @property
    def final_solution_id(self) -> str:
        """Which solution it is."""
        return self.solution.id

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without the solutions, which the run's result has."""
        usage = {"phase": self.usage_by_phase, "agent": self.usage_by_agent, "purpose": self.usage_by_purpose}
        found: dict[str, Any] = plain(
            {
                "final_solution_id": self.final_solution_id,
                "selection_method": self.selection_method,
                "iterations": self.iterations,
                "quality": {**asdict(self.quality), "assessment": self.quality.assessment},
                "verifications": [asdict(one) for one in self.verifications],
                "usage": {by: {name: one.as_dict() for name, one in part.items()} for by, part in usage.items()},
                "failures": self.failures,
                "strategies": self.strategies,
                "calibration": self.calibration and asdict(self.calibration),
                "lightweight": self.is_lightweight,
                "budget_exhausted": self.budget_exhausted,
                "timed_out": self.timed_out,
                "seed": self.seed,
                "text": self.text,
                "completed_at": self.completed_at,
            }
        )
        return found
