"""How sure one may be of an answer: token-level confidence, and scorers that optimizers rank candidates by."""

from optillm_local.confidence.comparison import Tournament
from optillm_local.confidence.lineup import Lineup
from optillm_local.confidence.named import MEANINGS, SCORERS, ScorerOption, scorer
from optillm_local.confidence.pointwise import PointwiseOption, ProbabilityOption
from optillm_local.confidence.scorer import Pointwise, Scorer
from optillm_local.confidence.verdict import CORRECT, INCORRECT, LABELS, Levels, PCorrect

__all__ = [
    "CORRECT",
    "INCORRECT",
    "LABELS",
    "MEANINGS",
    "SCORERS",
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
