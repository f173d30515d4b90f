"""A router: one answer, and what the model thinks of it, decide how much more effort the question gets."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from optillm_local import registry
from optillm_local.answers import extract_answer
from optillm_local.confidence import PCorrect, PointwiseOption
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.events import AnswerSelected
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import current_span, emit, keep, revise, span
from optillm_local.optimizers.voting import Poll


def _known(name: str) -> str:
    """The name of an optimizer, or of a combination, that can be made."""
    registry.create(name)
    return name


@frozen_options
class Auto(Optimizer):
    """Three levels of effort, each entered only if the one before it has not settled the question.

    1. Probe: one answer, and a score of it that is read. It is the answer if the score is at least `sure`.
    2. Vote: n - 1 more answers join it in one batch, on its cached prompt, as in self-consistency. The majority is
       the answer if its share is at least `agreed`.
    3. `hard`: another optimizer starts afresh.

    codelion's optillm has a router too: a ModernBERT of 400 million parameters that was trained to name one of
    thirteen approaches. It sees the question alone and costs a second model; this one asks the model that
    is to answer, and fits every model.
    """

    name: ClassVar[str] = "auto"
    description: ClassVar[str] = "effort as needed: one answer, then a vote, then another optimizer"
    source: ClassVar[str] = "in the place of optillm's router"

    scorer: PointwiseOption = Field(
        default=PCorrect(), description="how sure the first answer is; one that scores each by itself"
    )
    sure: float = Field(default=0.9, description="a score at which the first answer is returned")
    n: int = Field(default=5, ge=2, le=4096, description="answers that vote, the first one included")
    agreed: float = Field(default=0.6, ge=0, le=1, description="share of the vote at which it counts")
    hard: Annotated[str, AfterValidator(_known)] = Field(
        default="mars", description="the optimizer for what the vote leaves open"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = self.scorer.sampled(Prompt.of(query))
        first, *others = prompt.fan(self.n)
        with span("probe"):
            [completion] = await client.sample(first)
            probe = await self._probed(prompt, completion, client)
        if probe.verification_score >= self.sure:
            return probe
        with span("vote"):
            elected = await self._vote(completion, others, client)
        if elected.metadata["share"] >= self.agreed:
            return elected
        with span("hard"):
            return await registry.create(self.hard).optimize(prompt.step("hard", self.hard), client)

    async def _probed(self, prompt: Prompt, completion: Completion, client: ModelClient) -> Solution:
        """The first answer with its score, selected if it is sure."""
        probe = keep(
            Solution.of(
                completion,
                answer=extract_answer(completion.text),
                agent_id="probe",
                phase="probe",
                temperature=prompt.sampling.temperature,
            )
        )
        [score] = await self.scorer.score(prompt, [completion], client)
        probe = revise(probe.but(verification_score=score))
        if score >= self.sure:
            selection = f"the first answer is sure: {self.scorer.description} {score:.3f}"
            here = current_span().id
            emit(AnswerSelected(span_id=here, solution_id=probe.id, answer=probe.answer, selection=selection))
            probe = probe.but(metadata={"selection": selection})
        return probe

    async def _vote(self, probe: Completion, others: list[Prompt], client: ModelClient) -> Solution:
        poll = Poll(self.n)
        await poll.add(0, probe)
        async with client.generate(others, report_every=AT_THE_END) as group:
            async for index, event in group:
                if isinstance(event, Completed) and await poll.add(index + 1, event.completion):
                    group.stop(because=poll.stopped)
        return await poll.elect(others[0].sampling.temperature)
