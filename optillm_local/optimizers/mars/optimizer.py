"""The optimizer: from a question to an output."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import cached_property
from typing import ClassVar, Self

from optillm_local.core.budget import Budget, Meter
from optillm_local.core.client import ModelClient
from optillm_local.core.errors import BudgetExceeded, NoSolutions, RequestRejected, Timeout
from optillm_local.core.events import Event, MarsEvent
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, listening, span
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.conclusion import conclude
from optillm_local.optimizers.mars.config import MarsConfig
from optillm_local.optimizers.mars.coordinator import Coordinator
from optillm_local.optimizers.mars.database import Database
from optillm_local.optimizers.mars.ledger import kept_ledger
from optillm_local.optimizers.mars.output import MarsOutput
from optillm_local.optimizers.mars.strategy_network import StrategyNetwork
from optillm_local.optimizers.mars.workspace import Workspace

logger = logging.getLogger(__name__)


class Mars(MarsConfig, Optimizer):
    """Agents solve a question in their own ways, judge each other's solutions, and rewrite what fails.

    Five phases: exploration, verification, aggregation (optional), improvement, selection; and a network of
    strategies that later runs learn from (optional). The options are those of `MarsConfig`. With at most 4000
    tokens a call, a run is lightweight in what is not set; see `auto_lightweight_mode`. The agents' temperatures
    stand in for the question's own; its other sampling holds for all of them.

    The phases and defaults are those that optillm-rs and codelion's optillm document. Theirs differ in what they
    do: the former calls no model, the latter has one agent verify everything and improves nothing.
    """

    name: ClassVar[str] = "mars"
    description: ClassVar[str] = "agents solve, judge each other, and rewrite what fails; verified answers win"

    @cached_property
    def _learned(self) -> StrategyNetwork:
        """What the runs of this optimizer learn, where no file keeps it."""
        return StrategyNetwork()

    @classmethod
    def of(cls, config: MarsConfig) -> Self:
        """The optimizer that is set to `config`."""
        return cls(**config.told())

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        return (await self.run(query, client)).solution

    async def stream(self, query: str | Prompt, client: ModelClient) -> AsyncGenerator[MarsEvent, None]:
        """Answer a question and yield the `MarsEvent`s as they happen, each after those it depends on."""
        async with aclosing(super().stream(query, client)) as events:
            async for event in events:
                if isinstance(event, MarsEvent):
                    yield event

    async def run(
        self, query: str | Prompt, client: ModelClient, *, network: StrategyNetwork | None = None
    ) -> MarsOutput:
        """Answer a question; the whole account of it.

        Args:
            network: strategies to share and to add to. Without it, and if `enable_strategy_network`, those in the
                file `path`, or those that this optimizer has learned before.

        Raises:
            NoSolutions: every agent failed; the message has the causes.
            RequestRejected: every agent's request was refused.
            Timeout: `timeout_seconds` passed before there was a solution.
            BudgetExceeded: the budget was spent before there was a solution.
            EngineDead: the engine is gone.
        """
        question = Prompt.of(query).seeded()
        config = self.for_max_tokens(question.sampling.max_tokens)
        timeout = Meter(Budget(seconds=config.timeout_seconds), client.clock())
        with ExitStack() as stack:
            database = stack.enter_context(Database(config.path)) if config.path else None
            stack.enter_context(span("mars", timeout))
            ledger = stack.enter_context(kept_ledger())
            if config.debug:
                stack.enter_context(listening(_log))
            workspace = Workspace(database, question=question.question, config=config.model_dump(mode="json"))
            team = Team(config, question, client, workspace)
            if network is None and config.enable_strategy_network:
                network = StrategyNetwork(database) if database else self._learned
            coordinator = Coordinator(team, network)
            await coordinator.run()
            if not workspace.drafts():
                raise _nothing(team, timeout)
            return await conclude(team, coordinator, ledger, timeout)


def _nothing(team: Team, timeout: Meter) -> Exception:
    """Why there is not one solution."""
    refusals = [one.__cause__ for one in team.failures if isinstance(one.__cause__, RequestRejected)]
    if timeout.exhausted:
        return Timeout(f"no solution within timeout_seconds={team.config.timeout_seconds:g}")
    try:
        current_span().check_budgets(team.client.clock())
    except BudgetExceeded as spent:
        return spent
    if refusals and len(refusals) == len(team.failures):
        return refusals[0]
    failures = "; ".join(str(failure) for failure in team.failures)
    return NoSolutions(f"none of {len(team.agents)} agents has a solution: {failures}")


def _log(event: Event) -> None:
    logger.info("%s", event.model_dump_json())
