"""The options of MARS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from optillm_local.confidence import ProbabilityOption
from optillm_local.core.errors import InvalidConfiguration, did_you_mean

ANCHORS = (0.3, 0.6, 1.0)
"""Temperatures of the seed's three agents; other numbers of agents spread over the same range."""


class MarsConfig(BaseModel):
    """What a MARS run is set to.

    The first fifteen options and their defaults are the seed's (optillm-rs, `MarsConfig`); the others are what
    its documentation describes and its code does not have. Frozen; the builders return changed copies:
    `MarsConfig().with_agents(5).with_aggregation("rsa")`.

    Raises:
        InvalidConfiguration: an unknown option ("did you mean"), a value that cannot work, or two that cannot
            work together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    agents: int = Field(3, ge=1, le=256, description="agents that solve the question, each in its own way")
    temperatures: tuple[float, ...] = Field(
        ANCHORS, description="one for each agent; left out, they are spread from 0.3 to 1"
    )
    consensus_threshold: int = Field(2, ge=1, description="passes in a row that mark a solution verified")
    enable_aggregation: bool = Field(False, description="make more of the solutions, by the method `aggregation`")
    enable_strategy_network: bool = Field(False, description="learn techniques, and share them with later runs")
    max_iterations: int = Field(5, ge=0, le=100, description="most rounds of improvement")
    use_thinking_tags: bool = Field(True, description="put the reasoning of the output's text in <think> tags")
    token_budget_reasoning: int = Field(64000, ge=1, description="most tokens of one call")
    token_budget_lightweight: int = Field(4000, ge=1, description="the same in a lightweight run")
    auto_lightweight_mode: bool = Field(
        True, description="be lightweight, in what is not set, if max_tokens is at most token_budget_lightweight"
    )
    aggregation_population_size: int = Field(6, ge=1, le=256, description="rsa: members of each generation")
    aggregation_selection_size: int = Field(3, ge=1, le=64, description="solutions one member is made from")
    aggregation_loops: int = Field(
        3, ge=1, le=100, description="generations of rsa, layers of mixture_of_agents, turns of mcts"
    )
    timeout_seconds: float = Field(300.0, gt=0, allow_inf_nan=False, description="then: the best answer so far")
    debug: bool = Field(False, description="log every event of the run")

    aggregation: str = Field(
        "rsa",
        description="rsa, majority, weighted_majority, best_of_n, mixture_of_experts, mixture_of_agents or mcts; "
        "or a method that the program registered",
    )
    verification: Literal["review", "read"] = Field(
        "review", description="verdicts after a short written review, or read at once (cheap)"
    )
    scorer: ProbabilityOption | None = Field(
        None, description="what the verifiers judge by, 0 to 1, in the place of `verification`; such as levels"
    )
    verifiers: int = Field(2, ge=1, le=64, description="other agents that judge each solution")
    review_tokens: int = Field(256, ge=1, description="most tokens of a review")
    confident_failure: float = Field(
        0.25, ge=0.0, lt=0.5, description="P(CORRECT) at or below this un-marks a verified solution"
    )
    min_verified_solutions: int = Field(1, ge=1, description="verified solutions that end the improvement")
    shared_strategies: int = Field(3, ge=1, le=20, description="techniques of earlier runs shown to the agents")
    path: Path | None = Field(None, description="SQLite file that keeps solutions and strategies between runs")
    reference_answer: str | None = Field(
        None, description="known answer, to report calibration with; the model never sees it"
    )

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            if name not in type(self).model_fields:
                raise InvalidConfiguration(
                    f"mars option {name}", value, did_you_mean(name, type(self).model_fields)
                )
        given = options.get("temperatures")
        if isinstance(given, list | tuple) and given:
            options.setdefault("agents", len(given))
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise InvalidConfiguration.of(error, lambda option: f"mars option {option}") from None

    @field_validator("temperatures")
    @classmethod
    def _in_range(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= one <= 2 for one in temperatures):
            raise InvalidConfiguration("mars option temperatures", list(temperatures), "each must be from 0 to 2")
        return temperatures

    @field_validator("path")
    @classmethod
    def _in_a_folder(cls, path: Path | None) -> Path | None:
        if path and not path.parent.is_dir():
            remedy = f"the directory {path.parent} does not exist; create it first"
            raise InvalidConfiguration("mars option path", str(path), remedy)
        if path and path.is_dir():
            raise InvalidConfiguration("mars option path", str(path), "is a directory; name a file in it")
        return path

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "temperatures" not in self.model_fields_set:
            object.__setattr__(self, "temperatures", spread(self.agents))
        if len(self.temperatures) != self.agents:
            remedy = f"must be one for each of the {self.agents} agents; change one of the two, or leave one out"
            raise InvalidConfiguration("mars option temperatures", list(self.temperatures), remedy)
        if self.verifiers < self.consensus_threshold:
            remedy = f"must be at least consensus_threshold={self.consensus_threshold}: nothing could be verified"
            raise InvalidConfiguration("mars option verifiers", self.verifiers, remedy)
        methods = self.aggregation_methods()
        if self.aggregation not in methods:
            remedy = did_you_mean(self.aggregation, methods)
            raise InvalidConfiguration("mars option aggregation", self.aggregation, remedy)
        return self

    @staticmethod
    def aggregation_methods() -> list[str]:
        """Names that `aggregation` may have; programs add theirs with `mars.aggregation.register_aggregator`."""
        from optillm_local.optimizers.mars import aggregation

        return aggregation.names()

    def told(self) -> dict[str, Any]:
        """The options that were set; the others are at their defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    # -- builders -----------------------------------------------------------------------------------------------

    def but(self, **changes: Any) -> Self:
        """A copy with some options set; those that were left to their defaults stay so."""
        return type(self)(**self.told() | changes)

    def with_agents(self, agents: int) -> Self:
        """Another number of agents, with temperatures spread anew."""
        return self._anew(agents=agents)

    def with_temperatures(self, *temperatures: float) -> Self:
        """As many agents as there are temperatures."""
        return self.but(temperatures=temperatures, agents=len(temperatures))

    def with_aggregation(self, method: str = "rsa") -> Self:
        """With aggregation, by that method."""
        return self.but(enable_aggregation=True, aggregation=method)

    def with_strategy_network(self, path: Path | str | None = None) -> Self:
        """With techniques that are learned, and kept in a file if one is named."""
        kept = {} if path is None else {"path": path}
        return self.but(enable_strategy_network=True, **kept)

    def with_advanced_features(self) -> Self:
        """With aggregation and the strategy network."""
        return self.but(enable_aggregation=True, enable_strategy_network=True)

    def with_max_iterations(self, rounds: int) -> Self:
        """At most so many rounds of improvement."""
        return self.but(max_iterations=rounds)

    def with_debug(self) -> Self:
        """With every event in the log."""
        return self.but(debug=True)

    def lightweight(self) -> Self:
        """Two agents, two rounds, no aggregation, no strategy network, the lightweight token budget."""
        return self._anew(**_LIGHTWEIGHT, token_budget_reasoning=self.token_budget_lightweight)

    def _anew(self, **changes: Any) -> Self:
        """A copy with another number of agents, which the temperatures that were set would not fit."""
        told = self.told()
        told.pop("temperatures", None)
        return type(self)(**told | changes)

    # -- what depends on the question ---------------------------------------------------------------------------

    def is_lightweight(self, max_tokens: int) -> bool:
        """Whether a run with that many tokens for each call is to be lightweight by itself."""
        return self.auto_lightweight_mode and max_tokens <= self.token_budget_lightweight

    def for_max_tokens(self, max_tokens: int) -> MarsConfig:
        """What such a run is set to: lightweight in what was not set, if it is to be."""
        light = _LIGHTWEIGHT if self.is_lightweight(max_tokens) else {}
        return MarsConfig(**light | self.told())

    def token_budget(self, max_tokens: int) -> int:
        """Most tokens of one call, where the question allows `max_tokens`."""
        light = self.is_lightweight(max_tokens)
        return min(max_tokens, self.token_budget_lightweight if light else self.token_budget_reasoning)


_LIGHTWEIGHT: dict[str, Any] = {
    "agents": 2,
    "max_iterations": 2,
    "enable_aggregation": False,
    "enable_strategy_network": False,
}


def spread(agents: int) -> tuple[float, ...]:
    """As many temperatures, from the lowest to the highest of `ANCHORS` along the line through them."""
    if agents == 1:
        return (ANCHORS[1],)
    found = []
    for index in range(agents):
        at = index * (len(ANCHORS) - 1) / (agents - 1)
        low = min(int(at), len(ANCHORS) - 2)
        found.append(round(ANCHORS[low] + (at - low) * (ANCHORS[low + 1] - ANCHORS[low]), 3))
    return tuple(found)
