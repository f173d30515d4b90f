"""Votes on what sampled paths answer, and when they are decided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from optillm_local.answers import AnswerClasses, Tally, extract_answer, is_decided
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.errors import NoSolutions
from optillm_local.core.events import VotesCounted
from optillm_local.core.generation import Generation
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep
from optillm_local.optimizers.candidates import NOTHING_WRITTEN, said, selected
from optillm_local.search import is_settled
from optillm_local.search.select import SETTLED

Stopping = Literal["decided", "beta", "never"]
"""When the paths that still run are aborted; see `RULES`."""


class StopRule(Protocol):
    """Says why the outstanding voters need not be heard; empty if they must be."""

    def __call__(self, tally: Tally, outstanding: int) -> str: ...


def decided(tally: Tally, outstanding: int) -> str:
    """Nobody who is outstanding can change the majority: the full run has the same answer. No vote exceeds 1."""
    return "the vote was decided" if is_decided(tally, float(outstanding)) else ""


def beta(tally: Tally, outstanding: int, threshold: float = SETTLED) -> str:
    """The majority so far is the lasting one with a probability of 95 %, whatever is outstanding.

    Parts of a vote count for nothing where they are the majority's, and as whole ones where they are against it.
    Source: Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", 2023, section 3.
    """
    counts = [math.floor(v) if choice == tally.winner else math.ceil(v) for choice, v in tally.totals.items()]
    return "the majority was certain enough" if is_settled(counts, threshold) else decided(tally, outstanding)


def consensus(share: float) -> StopRule:
    """A rule: the majority has this share of the votes so far, whatever is outstanding.

    Source: Fu et al., "Deep Think with Confidence", 2025, section 3.3 (adaptive sampling).
    """

    def agreed(tally: Tally, outstanding: int) -> str:
        return f"{share:.0%} of the vote agreed" if tally.share >= share else ""

    return agreed


def agreement(share: float, size: int) -> StopRule:
    """A rule: this share of `size` paths agree and cannot be overtaken, or no answer can still reach it."""

    def settled(tally: Tally, outstanding: int) -> str:
        most = max(tally.totals.values(), default=0.0)
        if most / size >= share and is_decided(tally, float(outstanding)):
            return "enough paths agreed"
        return "too few paths could still agree" if (most + outstanding) / size < share else ""

    return settled


def never(tally: Tally, outstanding: int) -> str:
    """Every path is heard."""
    return ""


RULES: dict[Stopping, StopRule] = {"decided": decided, "beta": beta, "never": never}


@dataclass(frozen=True, slots=True)
class Ballot:
    """One path, the answer it states, and the class of that answer: its choice, None if it states none."""

    index: int
    path: Completion
    stated: str | None
    choice: int | None
    weight: float

    @property
    def likelihood(self) -> float:
        """Mean log-probability, minus infinity where it is unknown: ranks ballots for the same answer."""
        mean = self.path.mean_logprob
        return -math.inf if math.isnan(mean) else mean

    def solution(self, tally: Tally, temperature: float) -> Solution:
        """The path as a candidate, with the share of the vote its answer has; pieces of answers have none."""
        if self.choice is None or self.path.finish_reason == "abort":
            share = math.nan
        else:
            share = tally.share_of(self.choice)
        return Solution.of(
            self.path,
            answer=self.stated or said(self.path),
            agent_id=f"agent-{self.index}",
            phase="generate",
            temperature=temperature,
            verification_score=share,
            metadata={"finish_reason": self.path.finish_reason, "weight": self.weight},
        )


def uniform(path: Completion) -> float:
    """One path, one vote."""
    return 1.0


def probability(path: Completion) -> float:
    """The geometric mean of the path's token probabilities; 1 where they are unknown."""
    return 1.0 if math.isnan(path.mean_logprob) else math.exp(path.mean_logprob)


class Poll:
    """A vote among `size` paths, counted as they finish. Paths cut off by a stop have no say, unless all were.

    Args:
        size: how many paths there are.
        weigh: the weight of a path's vote, 0 to 1 if `rule` is to be exact.
        rule: when the rest need not be heard.
    """

    def __init__(
        self, size: int, *, weigh: Callable[[Completion], float] = uniform, rule: StopRule = decided
    ) -> None:
        self.size, self.weigh, self.rule = size, weigh, rule
        self._classes = AnswerClasses()
        self._aborted: list[tuple[int, Completion]] = []
        self._dismissed: Counter[str] = Counter()
        self.ballots: list[Ballot] = []
        self.stopped = ""

    @property
    def outstanding(self) -> int:
        """Paths that have not ended."""
        return self.size - len(self.ballots) - len(self._aborted)

    @property
    def closed(self) -> bool:
        """Whether no further path should begin: the rest need not be heard, or a budget has cut one off."""
        return bool(self.stopped or self._aborted)

    @property
    def agreeing(self) -> float:
        """The weight of the leading answer, as a share of all paths, heard or not."""
        return max(self.tally().totals.values(), default=0.0) / self.size

    async def hear(self, group: Generation, first: int = 0) -> None:
        """Count the paths of a group, numbered from `first`, as they finish; end the rest if the rule says so."""
        async for index, event in group:
            if isinstance(event, Completed) and await self.add(first + index, event.completion):
                group.stop(because=self.stopped)

    async def add(self, index: int, path: Completion, dismissed: str = "") -> bool:
        """Count a path that ended; whether the rest need not be heard.

        If it was aborted for a reason of its own, and not because the rest is not needed, `dismissed` says how.
        """
        if path.finish_reason == "abort":
            self._aborted.append((index, path))
            self._dismissed.update([dismissed] if dismissed else [])
            return False
        self.ballots.append(await self._ballot(index, path))
        tally, names = self.tally(), _wordings(self.ballots)
        votes = {names[choice]: weight for choice, weight in tally.totals.items()}
        emit(VotesCounted(span_id=current_span().id, votes=votes, outstanding=self.outstanding))
        if self.outstanding and not self.stopped:
            self.stopped = self.rule(tally, self.outstanding)
        return bool(self.stopped)

    def reweigh(self, weigh: Callable[[Ballot], float]) -> None:
        """Give the votes that were cast other weights."""
        self.ballots = [replace(one, weight=weigh(one)) for one in self.ballots]

    def tally(self) -> Tally:
        """The count so far."""
        return Tally.of([one.choice for one in self.ballots], [one.weight for one in self.ballots])

    async def elect(self, temperature: float) -> Solution:
        """Of the answer with the most weight, reached first if two have it, the weightiest and likeliest path.

        Raises:
            NoSolutions: no path says anything.
        """
        if cut_off := not self.ballots:  # then these have a say
            self.ballots = [await self._ballot(index, path) for index, path in self._aborted]
            self._aborted, self._dismissed = [], Counter()
        tally, solutions = self.tally(), self.keep(temperature)
        if not solutions:
            raise NoSolutions(NOTHING_WRITTEN)
        # Without a winner nobody states an answer: nobody's choice is the winner's, so all are in the running.
        voters = [n for n in solutions if self.ballots[n].choice == tally.winner]
        best = solutions[max(voters, key=lambda n: (self.ballots[n].weight, self.ballots[n].likelihood))]
        if tally.winner is None:
            answer, selection = (
                best.answer,
                f"none of {len(self.ballots)} paths states an answer; the likeliest text",
            )
        else:
            answer = _wordings(self.ballots)[tally.winner]
            selection = self._account([self.ballots[n] for n in voters])
        selection += "; all were cut off" if cut_off else ""
        return selected(best.but(answer=answer), selection, share=tally.share)

    def keep(self, temperature: float) -> dict[int, Solution]:
        """Put the paths that say anything on record, with the share of the vote their answer has; by ballot."""
        tally = self.tally()
        return {n: keep(one.solution(tally, temperature)) for n, one in enumerate(self.ballots) if said(one.path)}

    def _account(self, voters: Sequence[Ballot]) -> str:
        heard = sum(one.weight > 0 for one in self.ballots)
        said = f"{sum(one.weight > 0 for one in voters)} of {heard} paths agree"
        said += f"; {ignored} without weight" if (ignored := len(self.ballots) - heard) else ""
        said += "".join(f"; {n} {why}" for why, n in self._dismissed.items())
        aborted = len(self._aborted) - self._dismissed.total()
        skipped = [f"{n} {how}" for n, how in ((aborted, "aborted"), (self.outstanding, "not begun")) if n]
        return (
            f"{said}; {' and '.join(skipped)} once {self.stopped or 'the budget was spent'}" if skipped else said
        )

    async def _ballot(self, index: int, path: Completion) -> Ballot:
        stated = extract_answer(path.text)
        return Ballot(index, path, stated, await self._classes.add(stated), self.weigh(path))


def _wordings(ballots: Sequence[Ballot]) -> dict[int, str]:
    """The most frequent wording of each class of equal answers; of equally frequent ones the first."""
    counts: dict[int, Counter[str]] = {}
    for ballot in ballots:
        if ballot.choice is not None and ballot.stated is not None:
            counts.setdefault(ballot.choice, Counter())[ballot.stated] += 1
    return {choice: count.most_common(1)[0][0] for choice, count in counts.items()}
