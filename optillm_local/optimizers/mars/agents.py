"""The agents of a run, and what each of them can be asked: to solve, to review, to judge, to rewrite."""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import anyio

from optillm_local.answers import AnswerClasses, extract_answer
from optillm_local.confidence import CORRECT, LABELS, Scorer
from optillm_local.core import errors
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.mars_events import Error, VerdictRead
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep
from optillm_local.optimizers.mars.config import MarsConfig, spread
from optillm_local.optimizers.mars.workspace import Draft, Strategy, Verification, Workspace
from optillm_local.prompts import render

R = TypeVar("R")

REVIEW_TEMPERATURE = 0.3
"""The seed's verifiers are agents of temperature 0.3."""

STEPS: dict[str, type[errors.MarsError]] = {
    "explore": errors.ExplorationError,
    "review": errors.VerificationError,
    "verdict": errors.VerificationError,
    "aggregate": errors.AggregationError,
    "improve": errors.ImprovementError,
    "extract": errors.StrategyExtractionError,
    "synthesize": errors.SelectionError,
}
"""What an agent may be asked for, and how that fails; the error knows the phase."""


class Approach(NamedTuple):
    """A way to reason: how to solve, and what to look at in the solutions of others."""

    name: str
    how: str
    lens: str


APPROACHES = (
    Approach("steps", "Go step by step and check each step.", "whether each step follows"),
    Approach("backwards", "Work backwards from what is asked.", "whether it answers what is asked"),
    Approach("example", "Try a simple case first.", "it against a simple case"),
    Approach("constraints", "List every condition, then derive.", "whether every condition is met"),
    Approach("shortcut", "Look for a symmetry, an invariant or an estimate.", "whether the size is plausible"),
    Approach("two_ways", "Solve it in two ways and compare.", "it in a second way"),
)


@dataclass(frozen=True, slots=True)
class Agent:
    """One of the team. Its number sets its approach; more agents than approaches begin them again."""

    number: int
    temperature: float

    @property
    def id(self) -> str:
        """How events and accounts call it."""
        return f"agent-{self.number}"

    @property
    def approach(self) -> Approach:
        """How it reasons."""
        return APPROACHES[self.number % len(APPROACHES)]


class Team:
    """All agents of one run, around one question.

    Attributes:
        agents: those that explore.
        everyone: they, and those that only judge.
        strategies: what the agents are shown of earlier runs.
        failures: steps that failed, in the order they did.
        spent: the budget that ended the run early, if one did.
    """

    def __init__(self, config: MarsConfig, question: Prompt, client: ModelClient, workspace: Workspace) -> None:
        first, me = "mars-0", current_span().run.new_id("mars")
        self._prefix = "" if me == first else f"{me}/"  # of solution ids: several teams may work in one run
        self.config, self.question, self.client, self.workspace = config, question, client, workspace
        self.classes = AnswerClasses()
        self.strategies: list[Strategy] = []
        self.failures: list[errors.MarsError] = []
        self.spent: errors.BudgetExceeded | None = None
        self.agents = [Agent(number, t) for number, t in enumerate(config.temperatures)]
        # With few explorers, further agents only judge: nobody judges their own solution, nor one twice.
        reserve = spread(max(1, config.verifiers + 1 - len(self.agents)))
        numbers = range(len(self.agents), config.verifiers + 1)
        self.everyone = self.agents + [Agent(n, t) for n, t in zip(numbers, reserve, strict=False)]
        self._seed = question.sampling.seed or 0
        self._max_tokens = config.token_budget(question.sampling.max_tokens)

    def others(self, author: int) -> list[Agent]:
        """The agents that are not the author: those that follow it, in a circle."""
        behind = [agent for agent in self.everyone if agent.number > author]
        before = [agent for agent in self.everyone if agent.number < author]
        return behind + before

    def seed(self, *names: object) -> int:
        """A seed for one draw of this run, the same whenever the run is repeated."""
        return (self._seed + zlib.crc32("/".join(map(str, names)).encode())) % 2**31

    def to_solve(self, agent: Agent) -> Prompt:
        """The question as an agent is asked to explore it."""
        return self.question.instructed(render("mars/explore", strategies=self.strategies, how=agent.approach.how))

    async def write(
        self,
        agent: Agent,
        asked: Prompt,
        step: str,
        *,
        about: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Completion:
        """What an agent writes.

        Raises:
            MarsError: of the step's kind, if the client fails.
            BudgetExceeded, EngineDead, Unsupported: as they are.
        """
        prompt = asked.but(
            log_tag=f"{step} {agent.id}",
            seed=self.seed(step, about, agent.number),
            temperature=agent.temperature if temperature is None else temperature,
            max_tokens=min(self._max_tokens, max_tokens or self._max_tokens),
            logprobs=asked.sampling.logprobs or 0,
            **({} if step in _PHASES else _PLAIN),
        )
        with _failing_as(step, agent, about):
            [completion] = await self.client.sample(prompt)
        return completion

    async def solve(
        self,
        agent: Agent,
        asked: Prompt,
        step: str,
        *,
        solution_id: str,
        parents: Sequence[Draft] = (),
        **about: Any,
    ) -> Draft:
        """A new solution, written and proposed.

        Raises:
            MarsError: of the step's kind; also if the agent says nothing.
        """
        completion = await self.write(agent, asked, step, about=solution_id)
        return await self.propose(
            completion, agent, asked, step, solution_id=solution_id, parents=parents, **about
        )

    async def propose(
        self,
        completion: Completion,
        agent: Agent,
        asked: Prompt,
        step: str,
        *,
        solution_id: str,
        parents: Sequence[Draft] = (),
        **about: Any,
    ) -> Draft:
        """What an agent wrote as a solution, kept and in the workspace.

        Raises:
            MarsError: of the step's kind, if it is empty.
        """
        if not solution_id.startswith(self._prefix):
            solution_id = f"{self._prefix}{solution_id}"
        if not completion.text.strip():
            raise STEPS[step]("it said nothing", agent_id=agent.id, solution_id=solution_id)
        whole = completion.finish_reason == "stop"
        stated = extract_answer(completion.text, deliberate=not whole)
        solution = Solution.of(
            completion,
            answer=stated,
            id=solution_id,
            agent_id=agent.id,
            phase=_PHASES[step],
            parents=tuple(parent.id for parent in parents),
            temperature=agent.temperature,
            metadata={
                "approach": agent.approach.name,
                "finish_reason": completion.finish_reason,
                "mean_logprob": completion.mean_logprob,
                **about,
            },
        )
        draft = self.workspace.add(Draft(solution, asked, completion, agent.number, stated, None))
        keep(solution)
        return self.workspace.classify(draft.id, await self._class_of(stated))

    async def _class_of(self, stated: str | None) -> int | None:
        """The class of an answer; None also where there is no time left to compare it with the others."""
        left = current_span().seconds_left(self.client.clock())
        limit = None if self.client.virtual_time or math.isinf(left) else left
        with self.client.clock_held(), anyio.move_on_after(limit):
            return await self.classes.add(stated)
        return None

    async def judge(self, agent: Agent, draft: Draft) -> Verification:
        """An agent's verdict on another's solution, after a written review or at once.

        Raises:
            VerificationError: the client fails, or cannot read probabilities.
        """
        if self.config.scorer:
            return await self.scored(self.config.scorer, agent, draft)
        if self.config.verification == "read":
            return await self.read(agent, draft)
        asked = draft.then(render("mars/review", lens=agent.approach.lens))
        review = await self.write(
            agent,
            asked,
            "review",
            about=draft.id,
            temperature=REVIEW_TEMPERATURE,
            max_tokens=self.config.review_tokens,
        )
        asked = asked.then(review.message(), Message("user", render("mars/verdict")))
        return await self.read(agent, draft, asked, review.answer or review.reasoning or review.text.strip())

    async def read(
        self, agent: Agent, draft: Draft, asked: Prompt | None = None, feedback: str = ""
    ) -> Verification:
        """P(CORRECT), read where a conversation asks for it; without one, right after the solution."""
        if asked is None:
            asked = draft.then(render("mars/judge", lens=agent.approach.lens))
        with _failing_as("verdict", agent, draft.id):
            choice = await self.client.choose(asked.but(log_tag=f"verdict {agent.id}"), LABELS)
        probability = choice[CORRECT]
        says = f"{agent.approach.lens}: P(correct) {probability:.2f}"
        return Verification(draft.id, agent.id, probability, choice.label_mass, feedback or says)

    async def scored(self, scorer: Scorer, agent: Agent, draft: Draft) -> Verification:
        """What a scorer thinks of a solution; what it has written, if it writes, differs from judge to judge."""
        asked = draft.asked.but(seed=self.seed("review", draft.id, agent.number))
        with _failing_as("verdict", agent, draft.id):
            [found] = await scorer.score(asked, [draft.completion], self.client)
        if math.isnan(found):
            raise errors.VerificationError("no verdict", agent_id=agent.id, solution_id=draft.id)
        return Verification(draft.id, agent.id, found, math.nan, f"{scorer.description} {found:.2f}")

    def record(self, verdict: Verification) -> None:
        """Put a verdict on the record."""
        self.workspace.record(verdict)
        emit(
            VerdictRead(
                span_id=current_span().id,
                solution_id=verdict.solution_id,
                agent_id=verdict.agent_id,
                probability=verdict.probability,
                label_mass=verdict.label_mass,
                feedback=verdict.feedback,
            )
        )

    async def attempt(self, step: Awaitable[R]) -> R | None:
        """The result of a step; None where it failed or the budget was spent, which is recorded."""
        try:
            return await step
        except errors.MarsError as error:
            self.failures.append(error)
            emit(
                Error(
                    span_id=current_span().id,
                    message=str(error),
                    phase=error.phase,
                    agent_id=error.agent_id,
                    solution_id=error.solution_id,
                )
            )
        except errors.BudgetExceeded as error:
            self.spent = self.spent or error
        return None


_PHASES = {"explore": "initial", "aggregate": "aggregated", "improve": "improved", "synthesize": "synthesized"}
# What the question says of its answers does not hold for reviews.
_PLAIN: dict[str, Any] = {"stop": (), "presence_penalty": 0.0, "frequency_penalty": 0.0}


@contextmanager
def _failing_as(step: str, agent: Agent, solution_id: str) -> Iterator[None]:
    """What the client raises, as the failure of one agent at one step."""
    try:
        yield
    except (errors.BudgetExceeded, errors.EngineDead, errors.Unsupported):
        raise
    except Exception as error:
        message = str(error) or type(error).__name__
        raise STEPS[step](message, agent_id=agent.id, solution_id=solution_id) from error
