"""Self-consistency: sample several reasoning paths, return the answer most of them reach."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from optillm_local.answers import AnswerClasses, Tally, extract_answer, is_decided
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.events import AnswerSelected, VotesCounted
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, span
from optillm_local.optimizers._options import optimizer_options


@optimizer_options
class SelfConsistency(Optimizer):
    """Sample n reasoning paths in one batch and vote on the answers they state.

    Answers that mean the same count as one (`optillm_local.answers`); a tie goes to the one reached first. Once no
    outstanding path can change the majority, the rest is aborted mid-token. Source: Wang et al.,
    "Self-Consistency Improves Chain of Thought Reasoning in Language Models", 2022. n=5 at temperature 1 is
    codelion's optillm, which samples one path after the other and compares whole texts.
    """

    name: ClassVar[str] = "self_consistency"
    description: ClassVar[str] = "n reasoning paths in one batch; the answer most of them reach; ends early"

    n: int = Field(5, ge=1, le=4096, description="reasoning paths to sample")
    weights: Literal["uniform", "probability"] = Field(
        "uniform", description="one vote each, or the geometric mean of the path's token probabilities"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        if self.weights == "probability" and prompt.sampling.logprobs is None:
            prompt = prompt.but(logprobs=0)
        with span("generate"):
            async with client.generate(prompt.fan(self.n), report_every=AT_THE_END) as group:
                ballots = await self._vote_as_they_finish(group)
        return self._elect(ballots, prompt.sampling.temperature)

    async def _vote_as_they_finish(self, group: Generation) -> list[_Ballot]:
        """The ballots of the whole paths, in the order they finished; of the aborted ones if none is whole."""
        classes = AnswerClasses()
        ballots: list[_Ballot] = []
        aborted: list[tuple[int, Completion]] = []
        async for index, event in group:
            if not isinstance(event, Completed):
                continue
            if event.finish_reason == "abort":
                aborted.append((index, event.completion))
                continue
            ballots.append(await self._ballot(index, event.completion, classes))
            outstanding = self.n - len(ballots) - len(aborted)
            tally, names = _count(ballots), _wordings(ballots)
            votes = {names[choice]: weight for choice, weight in tally.totals.items()}
            emit(VotesCounted(span_id=current_span().id, votes=votes, outstanding=outstanding))
            if outstanding and is_decided(tally, float(outstanding)):  # no path weighs more than 1
                group.stop()
        return ballots or [await self._ballot(index, path, classes) for index, path in aborted]

    async def _ballot(self, index: int, path: Completion, classes: AnswerClasses) -> _Ballot:
        stated, likelihood = extract_answer(path.text), path.mean_logprob
        known = not math.isnan(likelihood)
        weight = math.exp(likelihood) if known and self.weights == "probability" else 1.0
        choice = await classes.add(stated)
        return _Ballot(index, path, stated, choice, weight, likelihood if known else -math.inf)

    def _elect(self, ballots: Sequence[_Ballot], temperature: float) -> Solution:
        tally = _count(ballots)
        solutions = [keep(ballot.solution(tally, temperature)) for ballot in ballots]
        # Without a winner nobody states an answer: nobody's choice is the winner's, so all are in the running.
        voters = [n for n, ballot in enumerate(ballots) if ballot.choice == tally.winner]
        best = solutions[max(voters, key=lambda n: ballots[n].likelihood)]
        if tally.winner is None:
            answer = best.answer
            selection = f"none of {len(ballots)} paths states an answer; the likeliest text"
        else:
            answer = _wordings(ballots)[tally.winner]
            selection = f"{len(voters)} of {len(ballots)} paths agree"
            if skipped := self.n - len(ballots):
                why = "vote was decided" if is_decided(tally, float(skipped)) else "budget was spent"
                selection += f"; {skipped} aborted once the {why}"
        here = current_span().id
        emit(AnswerSelected(span_id=here, solution_id=best.id, answer=answer, selection=selection))
        return best.but(answer=answer, metadata={"selection": selection, "share": tally.share})


@dataclass(frozen=True, slots=True)
class _Ballot:
    """One path, the answer it states, and the class of that answer: its choice, None if it states none."""

    index: int
    path: Completion
    stated: str | None
    choice: int | None
    weight: float
    likelihood: float

    def solution(self, tally: Tally, temperature: float) -> Solution:
        """The path as a candidate, with the share of the vote its answer has."""
        return Solution.of(
            self.path,
            answer=self.stated,
            agent_id=f"agent-{self.index}",
            phase="generate",
            temperature=temperature,
            verification_score=math.nan if self.choice is None else tally.share_of(self.choice),
            metadata={"finish_reason": self.path.finish_reason},
        )


def _count(ballots: Sequence[_Ballot]) -> Tally:
    return Tally.of([ballot.choice for ballot in ballots], [ballot.weight for ballot in ballots])


def _wordings(ballots: Sequence[_Ballot]) -> dict[int, str]:
    """The most frequent wording of each class of equal answers; of equally frequent ones the first."""
    counts: dict[int, Counter[str]] = {}
    for ballot in ballots:
        if ballot.choice is not None and ballot.stated is not None:
            counts.setdefault(ballot.choice, Counter())[ballot.stated] += 1
    return {choice: count.most_common(1)[0][0] for choice, count in counts.items()}
