"""Types of options that take a scorer, by name, as a mapping or made."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from optillm_local.confidence.named import scorer
from optillm_local.confidence.scorer import Scorer
from optillm_local.core.errors import InvalidConfiguration


def _by_itself(given: Scorer) -> Scorer:
    if given.comparative:
        remedy = "it compares candidates; choose one that scores each by itself"
        raise InvalidConfiguration("scorer", given.name, remedy)
    return given


def _probability(given: Scorer) -> Scorer:
    if given.is_measured:
        remedy = "its scores are not between 0 and 1; choose one that reads a verdict"
        raise InvalidConfiguration("scorer", given.name, remedy)
    return given


ScorerOption = Annotated[Scorer, BeforeValidator(scorer)]
"""Any scorer."""

PointwiseOption = Annotated[ScorerOption, AfterValidator(_by_itself)]
"""For candidates that are not there at the same time: scorers that are not comparative."""

ProbabilityOption = Annotated[PointwiseOption, AfterValidator(_probability)]
"""Of those, scorers whose scores are between 0 and 1."""
