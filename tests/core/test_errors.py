"""One tree of errors, drawn where they live."""

import re

import pytest

from optillm_local.core import errors
from optillm_local.core.errors import did_you_mean

PUBLIC = [
    kind
    for name, kind in vars(errors).items()
    if getattr(kind, "__module__", "") == errors.__name__ and name[0].isupper()
]


def drawn() -> dict[str, str]:
    """Name of each error in the docstring -> name of the one it stands under."""
    above, tree = {}, {}
    for indent, name in re.findall(r"^( *)[*x+] (\w+)", errors.__doc__ or "", re.MULTILINE):
        above[len(indent)] = name
        tree[name] = above.get(len(indent) - 2, "Exception")
    return tree


def public_parent(kind: type) -> str:
    return next(base.__name__ for base in kind.__mro__[1:] if base.__name__[0] != "_")


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert drawn() == {kind.__name__: public_parent(kind) for kind in PUBLIC}


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_error_says_what_it_is(kind: type) -> None:
    assert kind.__doc__


def test_familiar_errors_can_be_caught_by_their_familiar_names() -> None:
    assert issubclass(errors.InvalidConfiguration, ValueError)
    assert issubclass(errors.Timeout, TimeoutError)


@pytest.mark.parametrize("kind", [errors.RequestRejected, errors.InvalidConfiguration])
def test_a_refusal_carries_field_value_and_remedy(kind: type[errors.RequestRejected]) -> None:
    error = kind("n", 0, "at least 1")
    assert (error.field, error.value, error.remedy, str(error)) == ("n", 0, "at least 1", "n=0: at least 1")


@pytest.mark.parametrize("kind", [errors.Truncated, errors.ParsingError])
def test_an_error_about_a_text_carries_it(kind: type[errors.Truncated]) -> None:
    assert (kind("cut", "The ans").text, kind("cut").text) == ("The ans", "")


def test_a_spent_budget_carries_its_numbers() -> None:
    error = errors.BudgetExceeded("tokens", 12, 10)
    assert (error.kind, error.spent, error.limit) == ("tokens", 12, 10)
    assert str(error) == "the budget of 10 tokens is spent (12 used)"


def test_a_failed_step_says_where_it_failed() -> None:
    error = errors.VerificationError("no verdict", agent_id="agent-1", solution_id="explore-0")
    assert (error.phase, error.agent_id, error.solution_id) == ("verification", "agent-1", "explore-0")
    assert str(error) == "verification agent-1 explore-0: no verdict"
    assert str(errors.MarsError("by itself")) == "by itself"


@pytest.mark.parametrize(
    ("name", "known", "remedy"),
    [
        ("tempereture", ["temperature", "top_p"], "unknown. Did you mean 'temperature'?"),
        ("top", ["top_p", "top_k"], "unknown. Did you mean 'top_p' or 'top_k'?"),
        ("zzz", ["b", "a"], "unknown. Known: a, b"),
        ("zzz", [], "unknown. Known: none"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_or_all(name: str, known: list[str], remedy: str) -> None:
    assert did_you_mean(name, known) == remedy
