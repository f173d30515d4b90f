"""Parts of MARS on their own: bounds of options, rows on disk, and strategies of aggregation over a given pool."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from optillm_local import Completion, MarsConfig, Prompt, ScriptedClient, Solution, TokenUsage, create
from optillm_local.core.errors import AggregationError, ClientError, InvalidConfiguration
from optillm_local.optimizers.mars import Draft, Team, Verification, Workspace, aggregation
from optillm_local.optimizers.mars.database import Database

STEPS = 5
QUESTION = Prompt.of("What is 3 * 4?", seed=3, max_tokens=5000)


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agents", 257),
        ("consensus_threshold", 0),
        ("max_iterations", -1),
        ("max_iterations", 101),
        ("token_budget_reasoning", 0),
        ("token_budget_lightweight", 0),
        ("aggregation_population_size", 0),
        ("aggregation_selection_size", 65),
        ("aggregation_loops", 0),
        ("timeout_seconds", -1.0),
        ("timeout_seconds", math.inf),
        ("verifiers", 65),
        ("review_tokens", 0),
        ("confident_failure", -0.1),
        ("min_verified_solutions", 0),
        ("shared_strategies", 21),
    ],
)
@pytest.mark.parametrize("made_by", [lambda **options: create("mars", **options), MarsConfig])
def test_a_value_out_of_range_names_option_value_and_bound(made_by: Any, name: str, value: float) -> None:
    with pytest.raises(InvalidConfiguration, match=r"should be|must be") as info:
        made_by(**{name: value})
    assert (info.value.field, info.value.value) == (f"mars option {name}", value)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda config: config.with_agents(5), {"agents"}),
        (lambda config: config.with_temperatures(0.1, 0.2), {"agents", "temperatures"}),
        (lambda config: config.with_temperatures(0.1, 0.2).with_agents(4), {"agents"}),
        (lambda config: config.with_debug().with_max_iterations(1), {"debug", "max_iterations"}),
        (lambda config: config.with_strategy_network(), {"enable_strategy_network"}),
    ],
)
def test_builders_leave_to_its_default_what_they_are_not_about(
    build: Callable[[MarsConfig], MarsConfig], told: set[str]
) -> None:
    assert build(MarsConfig()).model_fields_set == told


def test_what_a_builder_was_not_about_is_still_light_in_a_lightweight_run() -> None:
    light = MarsConfig().with_debug().for_max_tokens(100)
    assert (light.agents, light.max_iterations, light.debug) == (2, 2, True)
    told = MarsConfig().with_advanced_features().for_max_tokens(100)
    assert (told.agents, told.enable_aggregation, told.enable_strategy_network) == (2, True, True)


def test_the_lightweight_budget_is_where_lightweight_begins() -> None:
    config = MarsConfig(token_budget_lightweight=100, token_budget_reasoning=1000)
    assert [config.is_lightweight(tokens) for tokens in (100, 101)] == [True, False]
    assert [config.token_budget(tokens) for tokens in (50, 100, 500, 5000)] == [50, 100, 500, 1000]
    assert not config.but(auto_lightweight_mode=False).is_lightweight(1)


# -- rows on disk --------------------------------------------------------------------------------------------


def draft(name: str) -> Draft:
    completion = Completion("It is 4", (1, 2), "stop", TokenUsage())
    return Draft(Solution("4", id=name), QUESTION, completion, 0, "4", 0)


def test_a_file_has_the_run_its_solutions_and_the_last_verdict_of_each_agent(tmp_path: Path) -> None:
    with Database(tmp_path / "mars.db") as database:
        workspace = Workspace(database, question="2 + 2?", config={"agents": 3})
        made = workspace.add(draft("a"))
        workspace.revise(made.solution.but(is_verified=True))
        for probability in (0.2, 0.9):
            workspace.record(Verification("a", "agent-1", probability, 1.0, "fine"))
        workspace.complete({"answer": "4"})
        [run] = database.read("SELECT * FROM runs")
        [solution] = database.read("SELECT * FROM solutions")
        [verdict] = database.read("SELECT * FROM verifications")
    assert (run["question"], json.loads(run["config"])) == ("2 + 2?", {"agents": 3})
    started, completed = (datetime.fromisoformat(run[name]) for name in ("started_at", "completed_at"))
    assert json.loads(run["output"]) == {"answer": "4"} and completed >= started
    assert json.loads(solution["body"])["is_verified"] and verdict["probability"] == 0.9
    assert len(workspace.verifications("a")) == 2


def test_runs_that_share_a_file_keep_solutions_of_the_same_id_apart(tmp_path: Path) -> None:
    with Database(tmp_path / "mars.db") as database:
        for _ in range(2):
            Workspace(database).add(draft("explore-0"))
        rows = database.read("SELECT run_id, id FROM solutions ORDER BY run_id")
    assert rows == [{"run_id": 1, "id": "explore-0"}, {"run_id": 2, "id": "explore-0"}]


WRITER = """
import sys
from optillm_local.optimizers.mars import StrategyNetwork, Verification, Workspace
from optillm_local.optimizers.mars.database import Database
print("ready", flush=True)
sys.stdin.readline()
with Database(sys.argv[1]) as database:
    workspace, network = Workspace(database), StrategyNetwork(database)
    for number in range(50):
        workspace.record(Verification(str(number), "agent-1", 0.9, 1.0, "fine"))
        network.rate(1, True)
"""


def test_programs_that_write_to_one_file_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path, pipe = tmp_path / "mars.db", subprocess.PIPE
    with Database(path) as database:
        database.write(
            "INSERT INTO strategies (technique, description, question, discovered_by, success_rate, uses)"
            " VALUES ('Halve it', 'divide by two', '?', 'agent-0', 0.5, 0)",
            {},
        )
        command = [sys.executable, "-c", WRITER, str(path)]
        programs = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        assert [program.stdout and program.stdout.readline() for program in programs] == ["ready\n"] * 3
        for program in programs:
            program.communicate("go\n")
        [verdicts] = database.read("SELECT count(*) AS n FROM verifications")
        [strategy] = database.read("SELECT uses FROM strategies")
    assert [program.returncode for program in programs] == [0, 0, 0]
    assert (verdicts["n"], strategy["uses"]) == (150, 150)


# -- aggregation of a given pool -----------------------------------------------------------------------------


def says(answer: object) -> str:
    return "so " * (STEPS - 3) + f"Final answer: {answer}"


class Pool:
    """A team whose agents have explored, with scores: agent i states the i-th of `answers`."""

    def __init__(
        self, write: Callable[[Prompt], str], worth: Callable[[str], float] = lambda text: 0.1, **options: Any
    ) -> None:
        def choices(prompt: Prompt, labels: Sequence[str]) -> Mapping[str, float]:
            yes = worth([m.content for m in prompt.messages if m.role == "assistant"][-1])
            return {"Yes": yes, "No": 1 - yes}

        self._write, self._answers = write, [0, 1, 2]
        self.client = ScriptedClient(self._say, choices=choices, seconds_per_token=1.0)
        config = MarsConfig(**{"verification": "read"} | options)
        self.team = Team(config, QUESTION, self.client, Workspace())

    def _say(self, prompt: Prompt) -> str:
        purpose, agent = (prompt.log_tag or "").split(" agent-")
        return says(self._answers[int(agent)]) if purpose == "explore" else self._write(prompt)

    async def aggregated(
        self, method: str, answers: Sequence[object] = (0, 1, 2), scores: Sequence[float] = (0.1, 0.1, 0.1)
    ) -> list[Draft]:
        self._answers = list(answers)
        team, pool = self.team, []
        for agent, score in zip(team.agents, scores, strict=True):
            solution_id = f"explore-{agent.number}"
            made = await team.solve(agent, team.to_solve(agent), "explore", solution_id=solution_id)
            team.workspace.record(Verification(made.id, "agent-9", score, 1.0, "so so"))
            pool.append(team.workspace.revise(made.solution.but(verification_score=score)))
        self.explored_at = self.client.clock()
        return await aggregation.find(method)().aggregate(pool, team)

    @property
    def seconds(self) -> float:
        return self.client.clock() - self.explored_at

    def asked(self) -> list[str]:
        tagged = [p for p in self.client.prompts if (p.log_tag or "").startswith("aggregate")]
        return [p.messages[-1].content for p in tagged]

    def made(self) -> dict[str, Solution]:
        solutions = [one.solution for one in self.team.workspace.drafts()]
        return {one.id: one for one in solutions if one.phase == "aggregated"}


def wire_breaks_for(*agents: int) -> Callable[[Prompt], str]:
    def write(prompt: Prompt) -> str:
        if (prompt.log_tag or "").endswith(tuple(f"aggregate agent-{agent}" for agent in agents)):
            raise ClientError("the wire broke")
        return says(14)

    return write


@pytest.mark.parametrize(("members", "subset", "loops"), [(6, 3, 3), (2, 1, 2), (4, 2, 1)])
async def test_rsa_takes_as_long_as_its_loops_however_many_members(members: int, subset: int, loops: int) -> None:
    sizes = {
        "aggregation_population_size": members,
        "aggregation_selection_size": subset,
        "aggregation_loops": loops,
    }
    pool = Pool(lambda prompt: says(14), **sizes)
    assert len(await pool.aggregated("rsa")) == members
    assert pool.seconds == loops * STEPS
    assert [text.count("\nSolution ") for text in pool.asked()] == [min(subset, members)] * members * loops
    assert {len(one.parents) for one in pool.made().values()} == {subset}


async def test_rsa_makes_each_generation_from_the_last_in_the_order_of_the_agents() -> None:
    pool = Pool(lambda prompt: says(14), aggregation_selection_size=2, aggregation_loops=2)
    await pool.aggregated("rsa")
    author = {one.id: (one.author, one.id) for one in pool.team.workspace.drafts()}
    for name, one in pool.made().items():
        before = "explore-" if name.startswith("rsa-1.") else "rsa-1."
        assert all(parent.startswith(before) for parent in one.parents)
        assert list(one.parents) == sorted(one.parents, key=author.__getitem__)


async def test_what_most_of_the_last_generation_state_stands_for_the_result_of_rsa() -> None:
    def write(prompt: Prompt) -> str:
        return says(7 if prompt.log_tag == "aggregate agent-0" else 8)

    pool = Pool(write, aggregation_loops=1)
    assert [one.stated for one in await pool.aggregated("rsa")] == ["8", "8", "8", "8", "7", "7"]


@pytest.mark.parametrize(
    ("method", "answers", "scores", "wins"),
    [
        ("majority", (1, 2, 2), (0.9, 0.1, 0.2), 2),
        ("majority", (1, 2, 3), (0.1, 0.2, 0.9), 0),  # all tie: the first vote
        ("majority", (1, 1, 2), (0.2, 0.2, 0.9), 0),  # equals: the first
        ("weighted_majority", (1, 2, 2), (0.9, 0.1, 0.2), 0),
        ("weighted_majority", (1, 2, 2), (0.9, 0.5, 0.6), 2),
        ("weighted_majority", (1, 2, 2), (math.nan, math.nan, 0.1), 2),  # unjudged votes weigh nothing
        ("weighted_majority", (1, 2, 2), (math.nan, math.nan, math.nan), 0),
        ("best_of_n", (1, 2, 2), (0.3, 0.9, 0.2), 1),
        ("best_of_n", (1, 2, 2), (math.nan, 0.0, 0.0), 1),
    ],
)
async def test_votes_pick_a_member_of_the_pool_and_ask_nobody(
    method: str, answers: tuple[int, ...], scores: tuple[float, ...], wins: int
) -> None:
    pool = Pool(lambda prompt: says(14))
    [best] = await pool.aggregated(method, answers, scores)
    assert best.id == f"explore-{wins}"
    assert pool.seconds == 0 and pool.made() == {}


async def test_experts_are_weighed_by_a_softmax_over_the_best_and_the_best_writes() -> None:
    pool = Pool(lambda prompt: says(14), aggregation_selection_size=2)
    [mixture] = await pool.aggregated("mixture_of_experts", scores=(0.1, 0.9, 0.5))
    weights = dict(re.findall(r"\(expert: (\w+), weight (\d\.\d\d)\)", pool.asked()[0]))
    share = math.exp(0.9) / (math.exp(0.9) + math.exp(0.5))
    assert weights == {"backwards": f"{share:.2f}", "example": f"{1 - share:.2f}"}
    assert (mixture.author, mixture.solution.parents) == (1, ("explore-1", "explore-2"))


async def test_each_layer_of_a_mixture_reads_all_of_the_last_and_takes_as_long_as_one_agent() -> None:
    pool = Pool(lambda prompt: says(14), aggregation_loops=3)
    [mixture] = await pool.aggregated("mixture_of_agents")
    layers = [{f"layer-{number}.{agent}" for agent in range(3)} for number in (1, 2)]
    assert pool.seconds == 3 * STEPS and len(pool.asked()) == 3 + 3 + 1
    assert set(pool.made()["layer-1.0"].parents) == {"explore-0", "explore-1", "explore-2"}
    assert set(pool.made()["layer-2.0"].parents) == layers[0] and set(mixture.solution.parents) == layers[1]


async def test_an_agent_that_fails_is_missing_from_each_layer() -> None:
    pool = Pool(wire_breaks_for(1), aggregation_loops=2)
    [mixture] = await pool.aggregated("mixture_of_agents")
    assert set(mixture.solution.parents) == {"layer-1.0", "layer-1.2"}
    assert [str(one) for one in pool.team.failures] == ["aggregation agent-1 layer-1.1: the wire broke"]


@pytest.mark.parametrize("method", ["rsa", "mixture_of_agents", "mixture_of_experts"])
async def test_what_nobody_writes_is_an_aggregation_error(method: str) -> None:
    with pytest.raises(AggregationError, match="was written"):
        await Pool(wire_breaks_for(0, 1, 2)).aggregated(method)


def worth_what_it_states(text: str) -> float:
    return int(text.rpartition(": ")[2]) / 100


@pytest.mark.parametrize(("leaves", "turns"), [(3, 1), (3, 2), (1, 3)])
async def test_a_tree_search_takes_a_rewriting_and_a_read_for_each_turn(leaves: int, turns: int) -> None:
    sizes = {"aggregation_selection_size": leaves, "aggregation_loops": turns}
    pool = Pool(lambda prompt: says(10 + (prompt.sampling.seed or 0) % 80), worth_what_it_states, **sizes)
    await pool.aggregated("mcts")
    assert pool.seconds == turns * (STEPS + 1)
    assert len(pool.made()) == leaves * turns


async def test_leaves_that_are_expanded_together_are_not_the_same() -> None:
    pool = Pool(lambda prompt: says(50), worth_what_it_states, aggregation_loops=1)
    await pool.aggregated("mcts")
    assert sorted(one.parents for one in pool.made().values()) == [("explore-0",), ("explore-1",), ("explore-2",)]


@pytest.mark.parametrize(("written", "best"), [(90, "mcts-1."), (10, "explore-2")])
async def test_a_tree_search_returns_the_node_of_the_best_value_old_or_new(written: int, best: str) -> None:
    pool = Pool(lambda prompt: says(written), worth_what_it_states)
    [found] = await pool.aggregated("mcts", scores=(0.1, 0.2, 0.3))
    assert found.id.startswith(best)


async def test_a_tree_search_goes_on_where_rewritings_fail() -> None:
    pool = Pool(wire_breaks_for(0, 1, 2), worth_what_it_states, aggregation_loops=2)
    [found] = await pool.aggregated("mcts", scores=(0.1, 0.3, 0.2))
    assert found.id == "explore-1" and len(pool.team.failures) == 6
