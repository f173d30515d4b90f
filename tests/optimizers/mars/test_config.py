"""The options of MARS: the seed's defaults, what cannot work, builders, and what a run takes from them."""

from typing import Any

import pytest
from pydantic import ValidationError

from optillm_local import Mars, MarsConfig, create
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.optimizers.mars.config import spread

SEED: dict[str, Any] = {
    "agents": 3,
    "temperatures": (0.3, 0.6, 1.0),
    "consensus_threshold": 2,
    "enable_aggregation": False,
    "enable_strategy_network": False,
    "max_iterations": 5,
    "use_thinking_tags": True,
    "token_budget_reasoning": 64000,
    "token_budget_lightweight": 4000,
    "auto_lightweight_mode": True,
    "aggregation_population_size": 6,
    "aggregation_selection_size": 3,
    "aggregation_loops": 3,
    "timeout_seconds": 300,
    "debug": False,
}


def test_the_defaults_are_the_seeds() -> None:
    assert {name: getattr(MarsConfig(), name) for name in SEED} == SEED


@pytest.mark.parametrize(
    ("agents", "temperatures"),
    [(1, (0.6,)), (2, (0.3, 1.0)), (3, (0.3, 0.6, 1.0)), (5, (0.3, 0.45, 0.6, 0.8, 1.0))],
)
def test_temperatures_that_are_not_given_are_spread(agents: int, temperatures: tuple[float, ...]) -> None:
    assert spread(agents) == MarsConfig(agents=agents).temperatures == temperatures


def test_temperatures_that_are_given_set_the_number_of_agents() -> None:
    assert MarsConfig(temperatures=[0.1, 0.2, 0.3, 0.4, 0.5]).agents == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_agents": 3}, r"mars option num_agents=3: unknown\. Did you mean 'agents'\?"),
        ({"agents": 0}, "mars option agents=0: .*greater than or equal to 1"),
        ({"agents": "many"}, "mars option agents='many': .*valid integer"),
        ({"agents": 2, "temperatures": [0.1]}, r"temperatures=\[0\.1\]: must be one for each of the 2 agents"),
        ({"temperatures": [3.0]}, r"temperatures=\[3\.0\]: each must be from 0 to 2"),
        ({"temperatures": []}, r"temperatures=\[\]: must be one for each of the 3 agents"),
        ({"verifiers": 1}, "verifiers=1: must be at least consensus_threshold=2"),
        ({"aggregation": "rsaa"}, "mars option aggregation='rsaa': unknown. Did you mean 'rsa'"),
        ({"verification": "guess"}, "mars option verification='guess': .*'review' or 'read'"),
        ({"timeout_seconds": float("nan")}, "mars option timeout_seconds=nan"),
        ({"timeout_seconds": 0}, "mars option timeout_seconds=0"),
        (
            {"path": "/no/where.db"},
            "mars option path='/no/where.db': the directory /no does not exist; create it first",
        ),
        ({"confident_failure": 0.5}, "mars option confident_failure=0.5"),
    ],
)
def test_what_cannot_work_is_refused_by_name_with_a_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        MarsConfig(**options)
    with pytest.raises(InvalidConfiguration, match=message):
        create("mars", **options)


def test_options_given_as_text_are_read_as_their_type() -> None:
    made = create("mars", agents="5", enable_aggregation="true", timeout_seconds="2.5", path="x.db")
    assert isinstance(made, Mars)
    assert (made.agents, made.enable_aggregation, made.timeout_seconds, str(made.path)) == (5, True, 2.5, "x.db")


def test_builders_chain_and_leave_the_original_alone() -> None:
    config = MarsConfig()
    built = config.with_agents(5).with_aggregation("mcts").with_max_iterations(1).with_debug()
    assert (built.agents, len(built.temperatures), built.aggregation) == (5, 5, "mcts")
    assert built.enable_aggregation and built.debug and built.max_iterations == 1
    assert config == MarsConfig()
    assert MarsConfig().with_advanced_features().enable_strategy_network
    assert MarsConfig().with_temperatures(0.1, 0.9).agents == 2
    assert str(MarsConfig().with_strategy_network("x.db").path) == "x.db"
    with pytest.raises(InvalidConfiguration, match="agents=0"):
        config.with_agents(0)


def test_lightweight_is_two_agents_two_rounds_and_nothing_else() -> None:
    light = MarsConfig().with_agents(5).with_advanced_features().lightweight()
    assert (light.agents, light.max_iterations, light.temperatures) == (2, 2, (0.3, 1.0))
    assert not light.enable_aggregation and not light.enable_strategy_network
    assert light.token_budget(64000) == 4000
    assert MarsConfig(temperatures=(0.1, 0.2, 0.3)).lightweight().temperatures == (0.3, 1.0)


def test_with_few_tokens_a_run_is_lightweight_in_what_was_not_set() -> None:
    light = MarsConfig().for_max_tokens(4000)
    assert (light.agents, light.max_iterations) == (2, 2)
    assert MarsConfig().for_max_tokens(4001).agents == 3
    told = MarsConfig(agents=3, enable_aggregation=True).for_max_tokens(100)
    assert (told.agents, told.max_iterations, told.enable_aggregation) == (3, 2, True)
    assert MarsConfig(temperatures=(0.1, 0.2, 0.3)).for_max_tokens(100).agents == 3
    assert MarsConfig(auto_lightweight_mode=False).for_max_tokens(100).agents == 3


def test_a_call_has_at_most_the_token_budget() -> None:
    assert MarsConfig().token_budget(100_000) == 64000
    assert MarsConfig().token_budget(5000) == 5000
    assert MarsConfig().token_budget(300) == 300


def test_the_optimizer_is_a_configuration_and_knows_what_was_set() -> None:
    mars = Mars.of(MarsConfig().with_agents(4))
    assert mars.agents == 4 and mars.model_fields_set == {"agents"}
    assert mars.for_max_tokens(100).max_iterations == 2
    with pytest.raises(ValidationError, match="frozen"):
        mars.agents = 5  # type: ignore[misc]
