"""Self-consistency: sample several reasoning paths, return the answer most of them reach."""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar, Literal

from pydantic import Field

from optillm_local.answers import Tally, equivalence_classes, extract_answer, is_decided
from optillm_local.core.client import AT_THE_END, Generation, ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.events import AnswerSelected, VotesCounted
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, span
from optillm_local.optimizers._options import optimizer_options


@optimizer_options
class SelfConsistency(Optimizer):
    """Sample n reasoning paths in one batch and vote on the answers they state.

    Answers that mean the same count as one (`optillm_local.answers`). Once no outstanding path can change the
    majority, the rest is aborted mid-token. Source: Wang et al., "Self-Consistency Improves Chain of Thought
    Reasoning in Language Models", 2022. n=5 at temperature 1 is codelion's optillm, which samples one path
    after the other and compares whole texts.
    """

    name: ClassVar[str] = "self_consistency"
    description: ClassVar[str] = "n reasoning paths in one batch; the answer most of them reach; ends early"

    n: int = Field(5, ge=1, le=4096, description="reasoning paths to sample")
    weights: Literal["uniform", "probability"] = Field(
        "uniform", description="one vote each, or the geometric mean of the path's token probabilities"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        with span("generate"):
            async with client.generate(prompt.fan(self.n), report_every=AT_THE_END) as group:
                paths = await self._vote_as_they_finish(group)
        ballots = [_Ballot(paths[index], index, prompt) for index in sorted(paths)]
        return await self._elect(ballots)

    async def _vote_as_they_finish(self, group: Generation) -> dict[int, Completion]:
        paths: dict[int, Completion] = {}
        async for index, event in group:
            if not isinstance(event, Completed):
                continue
            paths[index] = event.completion
            if event.finish_reason == "abort":
                continue
            whole = [path for path in paths.values() if path.finish_reason != "abort"]
            tally, names = await self._count(whole)
            outstanding = self.n - len(paths)
            emit(
                VotesCounted(
                    span_id=current_span().id,
                    votes={names[c]: weight for c, weight in tally.totals.items()},
                    outstanding=outstanding,
                )
            )
            if outstanding and is_decided(tally, float(outstanding)):  # no path weighs more than 1
                group.stop()
        return paths

    async def _count(self, paths: list[Completion]) -> tuple[Tally, dict[int, str]]:
        """The vote, and the most frequent wording of each class of equal answers."""
        stated = [extract_answer(path.text) for path in paths]
        classes = await equivalence_classes(stated)
        tally = Tally.of(classes, [self._weight(path) for path in paths])
        names: dict[int, str] = {}
        for one in tally.totals:
            wordings = Counter(s for s, c in zip(stated, classes, strict=True) if c == one and s is not None)
            names[one] = wordings.most_common(1)[0][0]
        return tally, names

    def _weight(self, path: Completion) -> float:
        if self.weights == "uniform" or math.isnan(path.mean_logprob):
            return 1.0
        return math.exp(path.mean_logprob)

    async def _elect(self, ballots: list[_Ballot]) -> Solution:
        whole = [b for b in ballots if b.path.finish_reason != "abort"] or ballots
        classes = await equivalence_classes([b.stated for b in whole])
        tally = Tally.of(classes, [self._weight(b.path) for b in whole])
        for ballot, one in zip(whole, classes, strict=True):
            ballot.keep(tally.totals[one] / sum(tally.totals.values()) if one is not None else math.nan)
        if tally.winner is None:
            best = max(whole, key=lambda b: b.likelihood)
            selection = f"none of {len(whole)} paths states an answer; the likeliest text"
            answer = best.solution.answer
        else:
            voters = [b for b, one in zip(whole, classes, strict=True) if one == tally.winner]
            best = max(voters, key=lambda b: b.likelihood)
            answer = Counter(b.stated for b in voters).most_common(1)[0][0] or ""
            skipped = len(ballots) - len(whole)
            selection = f"{len(voters)} of {len(whole)} paths agree" + (
                f"; {skipped} aborted once the vote was decided" if skipped else ""
            )
        emit(
            AnswerSelected(
                span_id=current_span().id, solution_id=best.solution.id, answer=answer, selection=selection
            )
        )
        return best.solution.but(answer=answer, metadata={"selection": selection, "share": tally.share})


class _Ballot:
    """One path and the answer it states."""

    def __init__(self, path: Completion, index: int, prompt: Prompt) -> None:
        self.path = path
        self.stated = extract_answer(path.text)
        self.likelihood = -math.inf if math.isnan(path.mean_logprob) else path.mean_logprob
        self.solution = Solution.of(
            path,
            answer=self.stated,
            agent_id=f"agent-{index}",
            phase="generate",
            temperature=prompt.sampling.temperature,
            metadata={"finish_reason": path.finish_reason},
        )

    def keep(self, share: float) -> None:
        """Put the path on the record with the share of the vote its answer has."""
        self.solution = keep(self.solution.but(verification_score=share))
