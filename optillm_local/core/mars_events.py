"""What a multi-agent reasoning run tells beside its candidates: the phases of MARS and what comes out of each.

The names and the fields in their docstrings' first words are those of the seed architecture's `MarsEvent`.
"""

from __future__ import annotations

from typing import Literal

from optillm_local.core.record import Record


class ExplorationStarted(Record):
    """`num_agents` agents begin to solve the question, all at once."""

    event: Literal["exploration_started"] = "exploration_started"
    num_agents: int
    temperatures: list[float]
    strategies: list[str]


class VerificationStarted(Record):
    """Other agents begin to judge a solution."""

    event: Literal["verification_started"] = "verification_started"
    solution_id: str
    verifiers: list[str]


class VerdictRead(Record):
    """One verifier's verdict: P(CORRECT), and the review it wrote before."""

    event: Literal["verdict_read"] = "verdict_read"
    solution_id: str
    agent_id: str
    probability: float
    label_mass: float
    feedback: str


class SolutionVerified(Record):
    """The verdicts on a solution are in: whether it `is_correct`, and its confidence, `score`, with its parts."""

    event: Literal["solution_verified"] = "solution_verified"
    solution_id: str
    is_correct: bool
    score: float
    passes: int
    failures: int
    parts: dict[str, float | None]


class AggregationStarted(Record):
    """A strategy begins to make more out of the solutions there are."""

    event: Literal["aggregation_started"] = "aggregation_started"
    method: str
    num_solutions: int


class SolutionsAggregated(Record):
    """Aggregation is over; `result_solution_id` stands for what it made."""

    event: Literal["solutions_aggregated"] = "solutions_aggregated"
    result_solution_id: str
    source_solution_ids: list[str]
    method: str


class ImprovementStarted(Record):
    """Round `iteration` (from 1): unverified solutions are rewritten by other agents."""

    event: Literal["improvement_started"] = "improvement_started"
    iteration: int
    solution_ids: list[str]


class SolutionImproved(Record):
    """`solution_id` is `parent_id`, rewritten."""

    event: Literal["solution_improved"] = "solution_improved"
    solution_id: str
    parent_id: str
    agent_id: str


class StrategyNetworkStarted(Record):
    """Techniques of a verified solution are being extracted."""

    event: Literal["strategy_network_started"] = "strategy_network_started"
    solution_id: str


class StrategyExtracted(Record):
    """A technique was stored for later runs."""

    event: Literal["strategy_extracted"] = "strategy_extracted"
    strategy_id: str
    technique: str
    solution_id: str


class SelectionStarted(Record):
    """One answer is being chosen."""

    event: Literal["selection_started"] = "selection_started"
    num_solutions: int
    num_verified: int


class SynthesisStarted(Record):
    """Nothing is verified: one answer is being written from the best of what there is."""

    event: Literal["synthesis_started"] = "synthesis_started"
    source_solution_ids: list[str]


class AnswerSynthesized(Record):
    """The synthesis states `answer`."""

    event: Literal["answer_synthesized"] = "answer_synthesized"
    answer: str
    solution_id: str


class Completed(Record):
    """The run has its `final_answer`, chosen by `method`."""

    event: Literal["completed"] = "completed"
    final_answer: str
    method: str
    confidence: float | None
    iterations: int


class Error(Record):
    """One agent failed at one thing; the run goes on."""

    event: Literal["error"] = "error"
    message: str
    phase: str
    agent_id: str
    solution_id: str
