"""What turns one question into many model calls and one answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import ClassVar

from optillm_local.core.background import told_by
from optillm_local.core.client import ModelClient
from optillm_local.core.events import Event, Sink
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import open_run


class Optimizer(ABC):
    """A frozen, validated set of options that can be applied to any question.

    Subclasses are pydantic dataclasses: their fields are the options, their record and their help text.

    Attributes:
        name: how it is called on the command line and in `create`.
        description: one line for the table of optimizers.
        source: the paper or program it comes from.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str] = ""

    @abstractmethod
    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        """Answer a question.

        Candidates are put on the record with `keep` as soon as they exist: if the budget is spent, the one
        with the best verification score is returned in the place of an answer.

        Raises:
            NoSolutions: no candidate came out.
            ClientError: the model could not be asked.
            BudgetExceeded: the budget was spent; `run.solve` turns it into the best candidate so far.
        """

    def stream(self, query: str | Prompt, client: ModelClient) -> AsyncGenerator[Event, None]:
        """Answer a question and yield what happens as it happens; raises what `optimize` raises.

        A slow reader holds nothing up. One that leaves ends the run.
        """

        async def work(tell: Sink) -> None:
            with open_run([tell]):
                await self.optimize(query, client)

        return told_by(work)
