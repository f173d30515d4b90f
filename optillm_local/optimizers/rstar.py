"""rStar: tree search over reasoning actions, then agreement of each trajectory with its own completion."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import Field

from optillm_local.answers import AnswerClasses, extract_answer
from optillm_local.core.client import ModelClient
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import revise, span
from optillm_local.optimizers.candidates import candidate, selected
from optillm_local.optimizers.reasoning import NOTHING, Reasoner, Step, name
from optillm_local.optimizers.tree_search import visits
from optillm_local.search import Node, backpropagate, path, select_leaves


@frozen_options
class RStar(Optimizer):
    """Search over reasoning steps by UCT, and trust the trajectories that a second attempt confirms.

    A node is a step that one of five actions asked for. A rollout takes an action that was not tried yet where UCT
    leads it, and goes on at random until an answer is stated. It is worth the share of all trajectories that reach
    the same answer. The end of each trajectory is masked: it is consistent if the model completes it to the same
    answer, in whatever words. The answer that most consistent trajectories reach wins.

    Rollouts go side by side, kept apart by virtual losses, and a trajectory is checked the moment it ends.
    Defaults are those of codelion's optillm, which starts all rollouts at the root, shows the model only its last
    step, replaces the system prompt, reads only digits, and compares the words of the completions.
    """

    name: ClassVar[str] = "rstar"
    description: ClassVar[str] = "tree search over five reasoning actions; trajectories that completions confirm"
    source: ClassVar[str] = "Qi et al., Mutual Reasoning Makes Smaller LLMs Stronger Problem-Solvers, 2024"

    rollouts: int = Field(
        default=5,
        ge=1,
        le=4096,
        description="rollouts in all; one that ends where an earlier one did costs nothing",
    )
    depth: int = Field(default=3, ge=1, le=64, description="steps that may follow the first")
    exploration: float = Field(default=1.4, ge=0, description="weight of the exploration term of UCT")
    parallel: int = Field(
        default=5, ge=1, le=4096, description="rollouts side by side; the fewer, the better guided"
    )
    temperature: float = Field(default=0.2, ge=0, le=2, description="of all steps and completions")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        question = Prompt.of(query, temperature=self.temperature)
        search = _Search(self, question, Reasoner(question, client, self.depth))
        with span("rollouts"):
            await search.run()
        return search.best()


class _Search:
    """The trajectories of one run, each known by the node it ends at, and the votes for their answers."""

    def __init__(self, options: RStar, question: Prompt, reasoner: Reasoner) -> None:
        self._options, self._question, self._reasoner = options, question, reasoner
        self._root = reasoner.begin()
        self._classes = AnswerClasses()
        self._found: dict[Node[Step], Solution] = {}
        self._choices: dict[Node[Step], int | None] = {}  # classes of answers; None for a trajectory without one
        self._ends: list[Node[Step]] = []  # of every rollout: an end that was reached twice stands here twice

    async def run(self) -> None:
        """All rollouts. What a trajectory is worth does not depend on its check, so no rollout waits for that."""
        options = self._options
        async with task_group() as checks:

            async def roll_out(leaf: Node[Step]) -> Node[Step]:
                if leaf in self._found:  # it was reached before
                    return leaf
                end = await self._reasoner.roll_out(leaf)
                await self._conclude(end)
                if self._choices[end] is not None:
                    checks.start_soon(self._check, end)
                return end

            await visits(
                options.rollouts,
                options.parallel,
                lambda room: select_leaves(self._root, room, options.exploration),
                roll_out,
                self._tell,
            )

    async def _conclude(self, end: Node[Step]) -> None:
        """Put a trajectory on record; one whose last step came to nothing states no answer."""
        steps = [one.state.written for one in path(end) if one.state.written.text]
        last = steps[-1] if steps else NOTHING
        stated = extract_answer(last.text)
        is_whole = last is end.state.written and last.finish_reason != "abort"
        self._choices[end] = await self._classes.add(stated if is_whole else None)
        trajectory = candidate(last, self._question, "rollouts", name(end), answer=stated)
        self._found[end] = revise(trajectory.but(reasoning="\n\n".join(one.text for one in steps)))

    async def _check(self, end: Node[Step]) -> None:
        """Verify a trajectory if its completion, the end being masked, reaches the same answer."""
        completed = await self._reasoner.completed(end)
        choice = await self._classes.add(extract_answer(completed.text))
        self._found[end] = revise(self._found[end].but(is_verified=choice == self._choices[end]))

    def _tell(self, leaf: Node[Step], end: Node[Step]) -> None:
        """Count a rollout, and value all anew: what they are worth depends on where the others end."""
        backpropagate(end, 0.0)
        self._ends.append(end)
        shares = self._shares()
        for one in self._ends:
            for node in path(one):
                node.value_sum = 0.0
        for one in self._ends:
            for node in path(one):
                node.value_sum += shares[one]
        self._score(end, shares[end])

    def _shares(self) -> dict[Node[Step], float]:
        """The ends of the trajectories, and the share of all that reach the same answer; 0 without an answer."""
        ends = dict.fromkeys(self._ends)
        votes = Counter(self._choices[end] for end in ends)
        votes[None] = 0
        return {end: votes[self._choices[end]] / len(ends) for end in ends}

    def _score(self, end: Node[Step], share: float) -> None:
        self._found[end] = revise(self._found[end].but(verification_score=share))

    def best(self) -> Solution:
        """A trajectory to the answer that most consistent ones reach; of those the one of the highest mean value.

        Raises:
            NoSolutions: no trajectory says anything.
        """
        shares, found, choices = self._shares(), self._found, self._choices
        for end, share in shares.items():
            self._score(end, share)
        consistent = [end for end in shares if found[end].is_verified]
        pool = consistent or [end for end in shares if choices[end] is not None] or list(shares)
        [(winner, votes)] = Counter(choices[end] for end in pool).most_common(1)
        agreeing = [end for end in pool if choices[end] == winner]
        best = found[max(agreeing, key=lambda end: (bool(found[end].answer), end.mean))]
        if not best.answer:
            raise NoSolutions("no trajectory says anything")
        how = "confirmed by their completions" if consistent else "none confirmed by its completion"
        return selected(best, f"{votes} of {len(shares)} trajectories reach it, {how}")
