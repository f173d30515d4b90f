"""A router: one answer, and what the model thinks of it, decide how much more effort the question gets."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from optillm_local import registry
from optillm_local.confidence import PCorrect, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.voting import Poll, agreement
from optillm_local.prompts import render


def _known(name: str) -> str:
    """The name of an optimizer, or of a combination, that can be made."""
    registry.create(name)
    return name


@frozen_options
class Auto(Optimizer):
    """Three levels of effort, each entered only if the one before it has not settled the question.

    1. Probe: one answer, and a score of it that is read. It is the answer if the score is at least `sure`.
    2. Vote: n - 1 more answers join it in one batch, on its cached prompt, as in self-consistency. The majority is
       the answer if `agreed` of all n state it; once it is clear that they do or cannot, the rest is aborted.
    3. `hard`: another optimizer starts afresh.

    codelion's optillm has a router too: a ModernBERT of 400 million parameters that was trained to name one of
    thirteen approaches. It sees the question alone and costs a second model; this one asks the model that
    is to answer, and fits every model.
    """
