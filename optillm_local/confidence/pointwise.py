"""Options of optimizers that not any scorer will do for."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from optillm_local.confidence.named import scorer
from optillm_local.confidence.scorer import Scorer
from optillm_local.core.errors import InvalidConfiguration


def by_itself(given: Scorer) -> Scorer:
    """The scorer, if it scores each candidate by itself.

    Raises:
        InvalidConfiguration: it compares candidates with one another.
    """
    if given.comparative:
        remedy = "it compares candidates; choose one that scores each by itself"
        raise InvalidConfiguration("scorer", given.name, remedy)
    return given


def is_measured(given: Scorer) -> bool:
    """Whether scores are measured on the candidate's tokens, and so may be any number; others are 0 to 1."""
    return given.logprobs is not None


def probability(given: Scorer) -> Scorer:
    """The scorer, if its scores are 0 to 1.

    Raises:
        InvalidConfiguration: they may be any number.
    """
    if is_measured(given):
        remedy = "its scores are not between 0 and 1; choose one that reads a verdict"
        raise InvalidConfiguration("scorer", given.name, remedy)
    return given


PointwiseOption = Annotated[Scorer, BeforeValidator(scorer), AfterValidator(by_itself)]
"""Like `ScorerOption`, for candidates that are not there at the same time: scorers that are not comparative."""

ProbabilityOption = Annotated[PointwiseOption, AfterValidator(probability)]
"""Of those, scorers whose scores are between 0 and 1."""
