"""How sure one may be of an answer: token-level confidence, and scorers that optimizers rank candidates by."""

from optillm_local.confidence.asked_of import AskedOf
from optillm_local.confidence.comparison import Tournament
from optillm_local.confidence.lineup import Lineup
from optillm_local.confidence.named import SCORERS, scorer
from optillm_local.confidence.options import PointwiseOption, ProbabilityOption, ScorerOption
from optillm_local.confidence.scorer import Pointwise, Scorer
from optillm_local.confidence.verdict import CORRECT, INCORRECT, LABELS, Levels, PCorrect

__all__ = [
    "CORRECT",
    "INCORRECT",
    "LABELS",
    "SCORERS",
    "AskedOf",
    "Levels",
    "Lineup",
    "PCorrect",
    "Pointwise",
    "PointwiseOption",
    "ProbabilityOption",
    "Scorer",
    "ScorerOption",
    "Tournament",
    "scorer",
]
