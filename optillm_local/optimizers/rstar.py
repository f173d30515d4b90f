"""rStar: tree search over reasoning actions, then agreement of each trajectory with its own completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pydantic import Field

from optillm_local.answers import AnswerClasses, Tally, extract_answer
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import each
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import keep, revise, span
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.candidates import said, selected
from optillm_local.optimizers.growing import concludes, replies
from optillm_local.prompts import render
from optillm_local.search import Node, backpropagate, expand, path, select_leaves

ACTIONS = ("think", "finish", "ask", "recheck", "rephrase")
"""A1 to A5: one thought, all the steps that remain, a sub-question, the last step again, the question reworded."""

FINISH = "finish"

_NOTHING = Completion("", (), "length", TokenUsage())


@frozen_options
class RStar(Optimizer):
    """Search over reasoning steps by UCT, and trust the trajectories that a second attempt confirms.

    A node is a step that one of five actions asked for. A rollout takes an action that was not tried yet where UCT
    leads it, and goes on at random until an answer is stated. It is worth the share of all trajectories that reach
    the same answer. Then the end of each trajectory is masked: it is consistent if the model completes it to the
    same answer, in whatever words. The answer that most consistent trajectories reach wins.

    Rollouts go side by side, kept apart by virtual losses, and a trajectory is checked the moment it ends.
    Defaults are those of codelion's optillm, which starts all rollouts at the root, shows the model only its last
    step, replaces the system prompt, reads only digits, and compares the words of the completions.
    """

    name: ClassVar[str] = "rstar"
    description: ClassVar[str] = "tree search over five reasoning actions; trajectories that completions confirm"
    source: ClassVar[str] = "Qi et al., Mutual Reasoning Makes Smaller LLMs Stronger Problem-Solvers, 2024"

    rollouts: int = Field(default=5, ge=1, le=4096, description="trajectories to search for")
    depth: int = Field(default=3, ge=1, le=64, description="steps that may follow the first")
    exploration: float = Field(default=1.4, ge=0, description="weight of the exploration term of UCT")
    parallel: int = Field(
        default=5, ge=1, le=4096, description="rollouts side by side; the fewer, the better guided"
    )
    temperature: float = Field(default=0.2, ge=0, le=2, description="of all steps and completions")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        search = _Search(self, Prompt.of(query, temperature=self.temperature), client)
        with span("rollouts"):
            await search.run()
        return search.best()


@dataclass(slots=True)
class _Step:
    """An action and what it led to.

    Attributes:
        action: what is asked for; empty for the root.
        written: the step, once it was taken; nothing before that, and if it came to nothing.
        choice: the class of the answer that the trajectory ends with here; None if it ends without one.
        is_consistent: whether a completion of the masked trajectory reaches the same answer.
        solution: the trajectory, if it ends here.
    """

    action: str
    written: Completion = _NOTHING
    choice: int | None = None
    is_consistent: bool = False
    solution: Solution | None = None


class _Search:
    """The tree of one run."""

    def __init__(self, options: RStar, prompt: Prompt, client: ModelClient) -> None:
        self._options, self._prompt, self._client = options, prompt, client
        self._root = Node(_Step(""))
        self._open(self._root)
        self._classes = AnswerClasses()
        self._ends: list[Node[_Step]] = []

    async def run(self) -> None:
        """All rollouts; a round ends before the next, because its answers are the values that lead it."""
        left = self._options.rollouts
        while left:
            leaves = select_leaves(self._root, min(left, self._options.parallel), self._options.exploration)
            ends = await each(self._roll_out, leaves)
            self._ends += [end for end in dict.fromkeys(ends) if end not in self._ends]
            tally = _tally(self._ends)
            for end in ends:
                choice = end.state.choice
                backpropagate(end, 0.0 if choice is None else tally.share_of(choice))
            self._revise(tally)
            left -= len(leaves)

    def _revise(self, tally: Tally) -> None:
        """The shares of the vote are the scores on record."""
        for step in [end.state for end in self._ends]:
            if step.solution and step.choice is not None:
                step.solution = revise(step.solution.but(verification_score=tally.share_of(step.choice)))

    async def _roll_out(self, node: Node[_Step]) -> Node[_Step]:
        """Take steps from an action on until an answer is stated; the last of them."""
        while node.state.solution is None:
            await self._take(node)
            if _is_last(node.state):
                await self._conclude(node)
            else:
                self._open(node)
                seed = self._prompt.step("next", *_actions(_steps(node))).sampling.seed
                node = Random(seed).choice(node.children)
        return node

    def _open(self, node: Node[_Step]) -> None:
        """Offer the actions that may follow; before the last level that is only to finish."""
        expand(node, map(_Step, ACTIONS if node.depth < self._options.depth else (FINISH,)))

    async def _take(self, node: Node[_Step]) -> None:
        *before, step = _steps(node)
        asked = self._asked(before, step.action).step(step.action, *_actions(before))
        written = await replies(self._client, asked, self._prompt)
        step.written = written[0] if written else _NOTHING

    def _asked(self, before: Sequence[_Step], action: str) -> Prompt:
        """The question, the steps so far as turns of a conversation, and the action."""
        asked = self._prompt
        for number, step in enumerate(before):
            asked = asked.instructed(render("rstar/step", action=step.action, begun=number > 0))
            asked = asked.then(step.written.message())
        return asked.instructed(render("rstar/step", action=action, begun=bool(before)))

    async def _conclude(self, node: Node[_Step]) -> None:
        """Put a trajectory on record, and check whether its completion agrees with it."""
        steps = _steps(node)
        texts = [step.written for step in steps if step.written.text]
        written = texts[-1] if texts else _NOTHING
        stated = extract_answer(written.text)
        if written.finish_reason != "abort":
            node.state.choice = await self._classes.add(stated)
        trajectory = Solution.of(
            written,
            answer=said(written) if stated is None else stated,
            agent_id="/".join(_actions(steps)),
            phase="rollouts",
            temperature=self._options.temperature,
        ).but(reasoning="\n\n".join(one.text for one in texts))
        node.state.solution = keep(trajectory)
        if node.state.choice is not None:
            node.state.is_consistent = node.state.choice == await self._classes.add(await self._completed(steps))
            node.state.solution = revise(trajectory.but(is_verified=node.state.is_consistent))

    async def _completed(self, steps: Sequence[_Step]) -> str | None:
        """The answer that is reached from the first steps, the rest being masked."""
        seed = self._prompt.step("mask", *_actions(steps)).sampling.seed
        given = steps[: Random(seed).randrange(len(steps))]
        asked = self._asked(given, FINISH).step("complete", *_actions(steps))
        written = await replies(self._client, asked, self._prompt)
        return extract_answer(written[0].text) if written else None

    def best(self) -> Solution:
        """A trajectory to the answer that most consistent ones reach; of those the one of the highest mean value.

        Raises:
            NoSolutions: no trajectory says anything.
        """
        consistent = [end for end in self._ends if end.state.is_consistent]
        pool = consistent or [end for end in self._ends if end.state.choice is not None] or self._ends
        winner = _tally(pool).winner  # without one nobody states an answer, and all are in the running
        agreeing = [end for end in pool if end.state.choice == winner]
        found = [(end.mean, end.state.solution) for end in agreeing if end.state.solution]
        _, best = max(found, key=lambda pair: (bool(pair[1].answer), pair[0]))
        if not best.answer:
            raise NoSolutions("no trajectory says anything")
        how = "confirmed by their completions" if consistent else "none confirmed by its completion"
        return selected(best, f"{len(agreeing)} of {len(self._ends)} trajectories reach it, {how}")


def _steps(node: Node[_Step]) -> list[_Step]:
    """The states from the first step to the node's."""
    return [one.state for one in path(node)[1:]]


def _actions(steps: Sequence[_Step]) -> list[str]:
    return [step.action for step in steps]


def _is_last(step: _Step) -> bool:
    """Whether nothing can follow a step that was taken."""
    is_cut = step.written.finish_reason == "abort" or not step.written.text
    return step.action == FINISH or is_cut or concludes(step.written)


def _tally(ends: Sequence[Node[_Step]]) -> Tally:
    return Tally.of([end.state.choice for end in ends], [1.0] * len(ends))
