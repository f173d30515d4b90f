"""What an answer is: finding it in text, telling whether two are the same, counting votes for it.

This package is the only place that knows. Nothing here raises on what a model wrote: text without
an answer gives None, and answers that cannot be compared are different answers.
"""

from optillm_local.answers.equal import AnswerClasses, equivalence_classes, normalize
from optillm_local.answers.extract import extract_answer
from optillm_local.answers.vote import Tally, is_decided

__all__ = ["AnswerClasses", "Tally", "equivalence_classes", "extract_answer", "is_decided", "normalize"]
