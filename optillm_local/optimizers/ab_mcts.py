"""AB-MCTS: tree search that decides at every node whether to go wider or deeper; the search is treequest's."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from optillm_local.confidence import PCorrect, ProbabilityOption
from optillm_local.core.client import ModelClient
from optillm_local.core.errors import InvalidConfiguration, NoSolutions
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import candidate, ids, selected
from optillm_local.optimizers.tree_search import replies, value, visits
from optillm_local.prompts import render
from optillm_local.search import top_k


@frozen_options
class AdaptiveBranching(Optimizer):
    """Answer anew or refine an answer there is, whichever looks better by Thompson sampling.

    A node is an answer with its score; a child of the root is a new answer, a child of an answer a refinement of
    it. treequest chooses which node to expand next; several are under way side by side, and each answer is scored
    the moment it is written. Needs the extra `search`.
    """

    name: ClassVar[str] = "ab_mcts"
    description: ClassVar[str] = "new answers and refinements of the best, by adaptive branching tree search"
    source: ClassVar[str] = "Inoue et al., Wider or Deeper? Adaptive Branching Tree Search, 2025; treequest"

    trials: int = Field(default=16, ge=1, le=4096, description="answers and refinements in all")
    parallel: int = Field(
        default=4, ge=1, le=4096, description="of them, written side by side; the fewer, the better guided"
    )
    distribution: Literal["gaussian", "beta"] = Field(
        default="gaussian", description="what scores are modelled by; gaussian is treequest's default"
    )
    scorer: ProbabilityOption = Field(default=PCorrect(), description="scores the answers, 0 to 1; a scorer")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        tree = _Tree(self.distribution, prompt.step("tree").sampling.seed)
        answers: list[Solution] = []

        def tell(trial: _Trial, solution: Solution | None) -> None:
            if solution:
                answers.append(solution)
                tree.tell(trial, solution)

        with span("search"):
            await visits(
                self.trials, self.parallel, tree.ask, lambda trial: self._answer(prompt, trial, client), tell
            )
        if not answers:
            raise NoSolutions("the model wrote nothing")
        best = answers[top_k([one.verification_score for one in answers], 1)[0]]
        by = f"highest {self.scorer.description} of {len(answers)} answers"
        return selected(best, f"{by}: {best.verification_score:.3f}")

    async def _answer(self, prompt: Prompt, trial: _Trial, client: ModelClient) -> Solution | None:
        """A new answer, or a refinement of one there is; None if it says nothing."""
        asked, step, parent = prompt, "answer", trial.parent
        if parent and parent.completion:
            asked = prompt.then(parent.completion.message(), Message("user", render("ab_mcts/refine")))
            step = "refine"
        said = await replies(client, asked.step(step, trial.number), prompt)
        if not said:
            return None
        score = await value(self.scorer, prompt, said[0], client)
        parents = ids([parent] if parent else [])
        return candidate(said[0], prompt, step, trial.number, verification_score=score, parents=parents)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What treequest, which calls it `id`, wants written: a refinement of `parent`; without one, a new answer."""

    number: int
    parent: Solution | None
    id: str


class _Tree:
    """treequest's tree of solutions, drawing from random numbers of its own.

    Raises:
        InvalidConfiguration: treequest is not installed.
    """

    def __init__(self, distribution: str, seed: int | None) -> None:
        try:
            treequest: Any = importlib.import_module("treequest")
        except ImportError as error:
            remedy = f"needs treequest ({error}): pip install 'optillm-local[search]'"
            raise InvalidConfiguration("optimizer", AdaptiveBranching.name, remedy) from None
        self._algorithm = treequest.ABMCTSA(dist_type=distribution)
        self._state = self._algorithm.init_tree()
        self._random = np.random.RandomState(seed).get_state()
        self._numbers = itertools.count()

    def ask(self, n: int) -> list[_Trial]:
        """The next n trials."""
        with self._own_random():
            self._state, trials = self._algorithm.ask_batch(self._state, n, ["answer"])
        return [_Trial(next(self._numbers), trial.parent_state, trial.trial_id) for trial in trials]

    def tell(self, trial: _Trial, solution: Solution) -> None:
        """What came of a trial, if its score is known."""
        if not math.isnan(solution.verification_score):
            result = solution, solution.verification_score
            self._state = self._algorithm.tell(self._state, trial.id, result)

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """treequest draws from numpy's global generator: lend it ours, and leave the program's as it was."""
        outer = np.random.get_state()
        np.random.set_state(self._random)
        try:
            yield
        finally:
            self._random = np.random.get_state()
            np.random.set_state(outer)
