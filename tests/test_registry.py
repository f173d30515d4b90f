"""Optimizers by name, wherever they come from."""

from typing import Any, ClassVar

import pytest
from pydantic import Field

from optillm_local import ModelClient, Optimizer, Prompt, Solution, create, register, registry
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.options import frozen_options
from optillm_local.optimizers.best_of_n import BestOfN
from optillm_local.registry import Option, find, names, options_as_dict, options_of

BUILT_IN = sorted(registry._BUILT_IN)


@frozen_options
class Parrot(Optimizer):
    """Says what it is told."""

    name: ClassVar[str] = "parrot"
    description: ClassVar[str] = "for tests"
    times: int = Field(2, ge=1, description="how often")
    loud: bool = False
    pause_s: float | None = None

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        return Solution(str(query) * self.times)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_optimizer_goes_by_its_own_name_and_has_a_line_for_the_table(name: str) -> None:
    made = create(name)
    assert (type(made), made.name) == (find(name), name)
    assert made.description and "\n" not in made.description
    assert all(option.description for option in options_of(type(made)))


def test_names_are_sorted_and_unique() -> None:
    register(Parrot)
    register(BestOfN)
    assert set(BUILT_IN) < set(names())
    assert names() == sorted({*names(), "parrot"})


@pytest.mark.parametrize(
    ("given", "set_to"),
    [
        ({}, (2, False, None)),
        ({"times": "8", "loud": "true", "pause_s": "0.5"}, (8, True, 0.5)),
        ({"times": 8, "loud": True, "pause_s": 1}, (8, True, 1.0)),
    ],
)
def test_options_given_as_text_are_read_as_their_type(given: dict[str, Any], set_to: tuple[Any, ...]) -> None:
    register(Parrot)
    assert options_as_dict(create("parrot", **given)) == dict(
        zip(("times", "loud", "pause_s"), set_to, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("parot", {}, r"optimizer='parot': unknown\. Did you mean 'parrot'"),
        ("zzz", {}, r"optimizer='zzz': unknown\. Known: .*best_of_n, .*parrot, "),
        ("parrot", {"tines": 3}, r"parrot option tines=3: unknown\. Did you mean 'times'"),
        ("parrot", {"times": "many"}, "parrot option times='many': .*valid integer"),
        ("parrot", {"times": 0}, "parrot option times=0: .*greater than or equal to 1"),
        (
            "best_of_n",
            {"scorer": "luck"},
            "scorer='luck': unknown. Known: answer_span, bottom_group, confidence",
        ),
        ("best_of_n", {"n": 2.5}, r"best_of_n option n=2\.5: .*valid integer"),
    ],
)
def test_what_cannot_work_is_refused_by_name_with_a_remedy(
    name: str, options: dict[str, Any], message: str
) -> None:
    register(Parrot)
    with pytest.raises(InvalidConfiguration, match=message):
        create(name, **options)


def test_options_describe_themselves() -> None:
    assert options_of(Parrot) == [
        Option("times", "int", 2, "how often"),
        Option("loud", "bool", False, ""),
        Option("pause_s", "float | None", None, ""),
    ]


def test_an_optimizer_is_frozen_and_equals_its_options() -> None:
    register(Parrot)
    with pytest.raises(AttributeError):
        create("parrot").times = 3  # type: ignore[attr-defined]
    assert create("parrot", times=3) == create("parrot", times="3") != create("parrot")


def test_a_registered_optimizer_stands_in_for_a_built_in_one() -> None:
    @register
    class Mine(Parrot):
        name = "single"

    assert isinstance(create("single"), Mine)
