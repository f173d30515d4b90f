"""What the agents of a run know: solutions, the verdicts on them, and techniques of earlier runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from optillm_local.core.completion import Completion
from optillm_local.core.errors import MarsError
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.mars.database import Database, as_json


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Verification:
    """One agent's verdict on another's solution.

    Attributes:
        probability: P(CORRECT), read from log-probabilities.
        label_mass: how much probability the two labels hold together; see `Choice`.
        feedback: the review, or in its place what the number means.
    """

    solution_id: str
    agent_id: str
    probability: float
    label_mass: float
    feedback: str
    verified_at: str = field(default_factory=_now)

    @property
    def passed(self) -> bool:
        """Whether CORRECT is the more probable verdict."""
        return self.probability > 0.5


@dataclass(frozen=True, slots=True)
class Draft:
    """A solution, and the conversation it ends.

    Attributes:
        solution: as it is known by now.
        asked: what it answers.
        completion: what was generated. Verifiers and improvers go on from its very tokens, which are cached.
        author: number of the agent that wrote it.
        stated: the answer it states, if it states one.
        choice: the class of equal answers that `stated` is in.
    """

    solution: Solution
    asked: Prompt
    completion: Completion
    author: int
    stated: str | None
    choice: int | None

    @property
    def id(self) -> str:
        """The solution's."""
        return self.solution.id

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended before it stated an answer: there is nothing to verify."""
        return self.completion.finish_reason != "stop" and self.stated is None

    def then(self, text: str) -> Prompt:
        """The conversation, gone on with."""
        return self.asked.then(self.completion.message(), Message("user", text))


@dataclass(frozen=True, slots=True)
class Strategy:
    """A technique that helped once.

    Attributes:
        question: what it was found on.
        discovered_by: the agent whose solution it was in.
        success_rate: exponential average of the outcomes of the runs it was shown in, from 0.5; in [0, 1].
        uses: how many runs these are.
    """

    id: int
    technique: str
    description: str
    question: str
    discovered_by: str
    success_rate: float
    uses: int
    discovered_at: str


class Workspace:
    """Solutions and verdicts of one run. Threads and tasks may share it; what it returns is a snapshot.

    Attributes:
        not_kept: why the run is not on disk from some point on; None if all is well.

    Args:
        database: keeps them on disk as well; it may be shared with other runs.
        question, config: stored with the run.
    """

    def __init__(self, database: Database | None = None, *, question: str = "", config: Any = None) -> None:
        self._lock = threading.RLock()
        self._drafts: dict[str, Draft] = {}
        self._verifications: list[Verification] = []
        self._database = database
        self.not_kept: MarsError | None = None
        self.run_id = 0
        if database:
            row = {"question": question, "config": as_json(config), "now": _now()}
            self.run_id = database.write(
                "INSERT INTO runs (question, config, started_at) VALUES (:question, :config, :now)", row
            )

    def add(self, draft: Draft) -> Draft:
        """A new solution.

        Raises:
            MarsError: there is one of that id.
        """
        with self._lock:
            if draft.id in self._drafts:
                raise MarsError("there is a solution of that id already", solution_id=draft.id)
            self._drafts[draft.id] = draft
            self._store(draft.solution)
        return draft

    def revise(self, solution: Solution) -> Draft:
        """What is known of a solution by now.

        Raises:
            MarsError: there is none of that id.
        """
        with self._lock:
            self._drafts[solution.id] = draft = replace(self.get(solution.id), solution=solution)
            self._store(solution)
        return draft

    def classify(self, solution_id: str, choice: int | None) -> Draft:
        """Put a solution into a class of equal answers."""
        with self._lock:
            self._drafts[solution_id] = draft = replace(self.get(solution_id), choice=choice)
            return draft

    def record(self, verification: Verification) -> None:
        """A verdict; a second one by the same agent on the same solution replaces the first on disk."""
        with self._lock:
            self._verifications.append(verification)
        if self._database:
            row = {"run_id": self.run_id, **asdict(verification), "body": as_json(asdict(verification))}
            self._write(
                "INSERT OR REPLACE INTO verifications (run_id, solution_id, agent_id, probability, body)"
                " VALUES (:run_id, :solution_id, :agent_id, :probability, :body)",
                row,
            )

    def complete(self, output: Any) -> None:
        """The run is over."""
        if self._database:
            self._write(
                "UPDATE runs SET output = :output, completed_at = :now WHERE id = :id",
                {"output": as_json(output), "now": _now(), "id": self.run_id},
            )

    def get(self, solution_id: str) -> Draft:
        """The draft of that id.

        Raises:
            MarsError: there is none.
        """
        with self._lock:
            if solution_id not in self._drafts:
                raise MarsError("there is no solution of that id", solution_id=solution_id)
            return self._drafts[solution_id]

    def drafts(self) -> tuple[Draft, ...]:
        """All drafts, in the order they were added."""
        with self._lock:
            return tuple(self._drafts.values())

    def heads(self) -> tuple[Draft, ...]:
        """The drafts that no improvement stands in for."""
        drafts = self.drafts()
        replaced = {parent for d in drafts if d.solution.phase == "improved" for parent in d.solution.parents}
        return tuple(draft for draft in drafts if draft.id not in replaced)

    def verified(self) -> tuple[Draft, ...]:
        """The verified ones."""
        return tuple(draft for draft in self.drafts() if draft.solution.is_verified)

    def verifications(self, solution_id: str | None = None) -> tuple[Verification, ...]:
        """All verdicts, or those on one solution, in the order they came in."""
        with self._lock:
            return tuple(v for v in self._verifications if solution_id in (None, v.solution_id))

    def _store(self, solution: Solution) -> None:
        if self._database:
            self._write(
                "INSERT OR REPLACE INTO solutions (run_id, id, body) VALUES (:run_id, :id, :body)",
                {"run_id": self.run_id, "id": solution.id, "body": as_json(solution.as_dict())},
            )

    def _write(self, statement: str, row: Mapping[str, Any]) -> None:
        """Write to the file. One that cannot be written ends the keeping of this run, and not the run."""
        try:
            if self._database:
                self._database.write(statement, row)
        except MarsError as error:
            self._database, self.not_kept = None, error
