"""Techniques: stored once, found again by relevance, rated by outcome."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.optimizers.mars import StrategyNetwork
from optillm_local.optimizers.mars.database import Database
from optillm_local.optimizers.mars.strategy_network import parse_techniques


def filled() -> StrategyNetwork:
    network = StrategyNetwork()
    network.add(
        "Telescoping", "cancel neighbouring terms of the sum", question="Sum of a series", discovered_by="agent-0"
    )
    network.add("Units first", "convert all units", question="Speed of a train in km/h", discovered_by="agent-1")
    network.add("Partial fractions", "split terms of the sum", question="Sum of a series", discovered_by="agent-0")
    return network


def test_a_technique_is_stored_once() -> None:
    network = filled()
    again = network.add("Units first", "another wording", question="?", discovered_by="agent-2")
    assert (again.description, again.discovered_by) == ("convert all units", "agent-1")
    assert [one.technique for one in network.all()] == ["Telescoping", "Units first", "Partial fractions"]


def test_what_has_to_do_with_the_question_is_shown_the_best_first() -> None:
    network = filled()
    assert [one.technique for one in network.relevant("How fast is the train?", 3)] == ["Units first"]
    assert [one.technique for one in network.relevant("What is the sum of this series?", 1)] == ["Telescoping"]
    assert network.relevant("Who wrote Hamlet?", 3) == []
    for _ in range(3):
        network.rate(1, False)
        network.rate(3, True)
    assert [one.id for one in network.relevant("What is the sum of this series?", 2)] == [3, 1]


def test_outcomes_are_averaged_exponentially() -> None:
    network = filled()
    rates = []
    for success in (True, False, True):
        network.rate(2, success)
        rates.append(network.all()[1].success_rate)
    assert rates == pytest.approx([0.6, 0.48, 0.584])
    assert network.all()[1].uses == 3


def test_strategies_outlive_the_program_in_a_file(tmp_path: Path) -> None:
    with Database(tmp_path / "mars.db") as database:
        kept = StrategyNetwork(database).add("Halve it", "divide by two", question="?", discovered_by="agent-0")
    with Database(tmp_path / "mars.db") as database:
        assert StrategyNetwork(database).all() == [kept]


@pytest.mark.parametrize(
    "line",
    [
        "Halve it: divide by two",
        "1. Halve it: divide by two",
        "- **Halve it:** divide by two",
        "* `Halve it`: divide by two",
    ],
)
def test_a_technique_is_read_however_it_is_listed(line: str) -> None:
    assert parse_techniques(f"Here they are\n{line}\nand that is all.") == [("Halve it", "divide by two")]


def test_prose_names_no_technique() -> None:
    assert parse_techniques("I used nothing in particular.\n\nReally.") == []


@given(st.text())
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    assert len(parse_techniques(text)) <= 2


@pytest.mark.timeout(5)
@pytest.mark.parametrize("stuck", ["*" * 5000, "* " * 5000, "1. " * 5000, "a" * 5000, "a: " * 5000])
def test_a_model_that_repeats_itself_is_read_at_once(stuck: str) -> None:
    assert len(parse_techniques(stuck)) <= 1
