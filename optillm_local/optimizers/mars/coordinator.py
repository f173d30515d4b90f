"""Runs the phases of MARS over one team, each piece of work as soon as what it needs is there."""

from __future__ import annotations

from collections import Counter

import anyio
from anyio.abc import TaskGroup

from optillm_local.core.concurrency import Stoppable, each, task_group
from optillm_local.core.errors import AggregationError, BudgetExceeded, EngineDead, MarsError, Unsupported
from optillm_local.core.mars_events import (
    AggregationStarted,
    ExplorationStarted,
    ImprovementStarted,
    SolutionsAggregated,
)
from optillm_local.core.span import current_span, emit, span
from optillm_local.optimizers.mars import aggregation
from optillm_local.optimizers.mars.agents import Agent, Team
from optillm_local.optimizers.mars.improvement import feedback_on, improve
from optillm_local.optimizers.mars.strategy_network import StrategyNetwork
from optillm_local.optimizers.mars.verifier import Verifier
from optillm_local.optimizers.mars.workspace import Draft, Strategy


class Coordinator:
    """The data flow of a run.

    * A solution is verified the moment it is finished, while other agents still decode.
    * Aggregation begins when all have explored, beside their verification, unless it ranks by verdicts.
    * Rounds of improvement begin when the explored solutions are judged, beside aggregation.
    * Once the answer is settled, what still runs for it is aborted.

    Attributes:
        iterations: rounds of improvement so far.
        aggregated: what aggregation made, what stands for it first.
        learned: strategies extracted.
    """

    def __init__(self, team: Team, network: StrategyNetwork | None) -> None:
        self._team, self._config, self._workspace = team, team.config, team.workspace
        self._network = network
        self._verifier = Verifier(team)
        self._aggregator = aggregation.find(self._config.aggregation)()
        self._exploring = len(team.agents)
        self._judging: set[str] = set()  # of the explored ones
        self._failed: list[Draft] = []  # judged and not verified: to be improved in the next round
        self._wave = Stoppable()
        self._round = Stoppable()
        self._aggregating = Stoppable()
        self._all_explored = anyio.Event()
        self._aggregation_over = anyio.Event()
        self.iterations = 0
        self.aggregated: list[Draft] = []
        self.learned: list[Strategy] = []

    async def run(self) -> None:
        """Phases 1 to 4; the workspace has what came out."""
        async with task_group() as learning, task_group() as making:
            self._learning = learning
            if self._config.enable_aggregation and not self._aggregator.needs_verdicts:
                making.start_soon(self._aggregate)  # it waits for all to have explored
            with self._wave:
                await self._explore_and_verify()
            if self._is_unanimous():
                self._aggregating.stop("all explored solutions are verified and agree")
            elif self._config.enable_aggregation and self._aggregator.needs_verdicts:
                making.start_soon(self._aggregate)
            await self._improve()

    # -- exploration and verification ---------------------------------------------------------------------------

    async def _explore_and_verify(self) -> None:
        with span("exploration") as here:
            if self._network:
                question = self._team.question.question
                self._team.strategies = self._network.relevant(question, self._config.shared_strategies)
            emit(
                ExplorationStarted(
                    span_id=here.id,
                    num_agents=len(self._team.agents),
                    temperatures=list(self._config.temperatures),
                    strategies=[strategy.technique for strategy in self._team.strategies],
                )
            )
            async with task_group() as verifying:
                async with task_group() as exploring:
                    for agent in self._team.agents:
                        exploring.start_soon(self._explore, agent, verifying)
                self._all_explored.set()

    async def _explore(self, agent: Agent, verifying: TaskGroup) -> None:
        asked, solution_id = self._team.to_solve(agent), f"explore-{agent.number}"
        draft = await self._team.attempt(self._team.solve(agent, asked, "explore", solution_id=solution_id))
        if draft:
            self._judging.add(draft.id)
            verifying.start_soon(self._verify, draft)
        self._exploring -= 1
        self._let_go()

    async def _verify(self, draft: Draft) -> None:
        if draft.completion.finish_reason != "abort":
            draft = await self._verifier.verify(draft)
        self._judging.discard(draft.id)
        if draft.solution.is_verified:
            if self._network and draft.solution.phase != "aggregated":  # its techniques are its sources'
                self._learning.start_soon(self._learn, draft, self._network)
        elif draft.completion.finish_reason != "abort" and feedback_on(draft, self._team):
            self._failed.append(draft)
        self._let_go()

    def _let_go(self) -> None:
        """Abort what is decided."""
        if self._is_decided():
            self._wave.stop("a verified majority was decided")
        if self._is_enough():
            self._round.stop("enough solutions were verified")

    def rate_shown(self, success: bool) -> None:
        """Count the outcome for the strategies that the agents were shown."""
        for strategy in self._team.strategies:
            if self._network:
                self._network.rate(strategy.id, success)

    async def _learn(self, draft: Draft, network: StrategyNetwork) -> None:
        self.learned += await self._team.attempt(network.extract(draft, self._team)) or []

    # -- aggregation --------------------------------------------------------------------------------------------

    async def _aggregate(self) -> None:
        try:
            with self._aggregating:
                await self._all_explored.wait()
                if (pool := self._explored()) and not self._team.spent:
                    with span("aggregation"):
                        known = {draft.id for draft in pool}
                        self.aggregated = await self._team.attempt(self._aggregated_from(pool)) or []
                        await each(self._verify, [draft for draft in self.aggregated if draft.id not in known])
        finally:
            self._aggregation_over.set()

    async def _aggregated_from(self, pool: list[Draft]) -> list[Draft]:
        here, method = current_span().id, self._aggregator.name
        emit(AggregationStarted(span_id=here, method=method, num_solutions=len(pool)))
        try:
            made = [self._workspace.get(one.id) for one in await self._aggregator.aggregate(pool, self._team)]
        except (MarsError, BudgetExceeded, EngineDead, Unsupported):
            raise
        except Exception as error:  # a strategy of the program's own must not cost the solutions
            raise AggregationError(f"{method}: {type(error).__name__}: {error}") from error
        if made:
            emit(
                SolutionsAggregated(
                    span_id=here,
                    result_solution_id=made[0].id,
                    source_solution_ids=[draft.id for draft in pool],
                    method=method,
                )
            )
        return made

    # -- improvement --------------------------------------------------------------------------------------------

    async def _improve(self) -> None:
        while self.iterations < self._config.max_iterations and not self._is_enough() and not self._team.spent:
            drafts, self._failed = sorted(self._failed, key=lambda draft: draft.author), []
            if drafts:
                self.iterations += 1
                await self._improve_all(drafts)
            elif self._is_aggregating():
                await self._aggregation_over.wait()
            else:  # nothing has changed
                return

    async def _improve_all(self, drafts: list[Draft]) -> None:
        with Stoppable() as self._round, span("improvement") as here:
            ids = [draft.id for draft in drafts]
            emit(ImprovementStarted(span_id=here.id, iteration=self.iterations, solution_ids=ids))
            await each(self._improve_one, drafts)

    async def _improve_one(self, draft: Draft) -> None:
        failures = len(self._team.failures)
        improved = await self._team.attempt(improve(draft, self._team, turn=self.iterations))
        if improved:
            await self._verify(improved)
        elif len(self._team.failures) > failures:
            self._failed.append(draft)  # the next round asks another agent

    # -- what is decided ----------------------------------------------------------------------------------------

    def _is_enough(self) -> bool:
        return len(self._workspace.verified()) >= self._config.min_verified_solutions

    def _is_decided(self) -> bool:
        """Whether one answer has the verified majority, whatever the outstanding verdicts say."""
        if self._config.enable_aggregation or not self._is_enough():
            return False
        votes = Counter(draft.choice for draft in self._workspace.verified())
        choice, count = max(votes.items(), key=lambda vote: vote[1], default=(None, 0))
        outstanding = [self._workspace.get(one).choice for one in self._judging]
        against = sum(votes.values()) - count + sum(one != choice for one in outstanding) + self._exploring
        return choice is not None and count >= 2 and count > against

    def _is_unanimous(self) -> bool:
        """Whether all explored solutions are verified and state one answer: nothing is left to make of them."""
        explored = self._explored()
        answers = {draft.choice for draft in explored}
        verified = all(draft.solution.is_verified for draft in explored)
        return verified and len(explored) == len(self._team.agents) and len(answers) == 1 and None not in answers

    def _explored(self) -> list[Draft]:
        """By agent: in which order they finished must not matter to what comes of them."""
        explored = [draft for draft in self._workspace.drafts() if draft.solution.phase == "initial"]
        return sorted(explored, key=lambda draft: draft.author)

    def _is_aggregating(self) -> bool:
        enabled = self._config.enable_aggregation and not self._aggregating.is_stopped
        return enabled and not self._aggregation_over.is_set()
