"""A tag, the body or the model's name says which optimizer answers."""

from __future__ import annotations

from typing import Any

import pytest

from optillm_local import Message
from optillm_local.core.errors import InvalidConfiguration, ModelNotFound, RequestRejected
from optillm_local.openai.approach import Approach, Known, without_tags
from optillm_local.openai.request import ChatRequest

MODELS = Known(["meta-llama/Llama-3.2-1B", "tiny"], ["poet"])


def approach(model: str, tagged: str = "", known: Known = MODELS, **body: Any) -> Approach:
    request = ChatRequest.of({"messages": [{"role": "user", "content": "x"}], "model": model, **body})
    return known.approach_of(request, tagged)


def name(model: str, tagged: str = "", known: Known = MODELS, **body: Any) -> str:
    optimizer = approach(model, tagged, known, **body).optimizer
    return optimizer.name if optimizer else "none"


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        ("tiny", "none"),
        ("", "none"),
        ("meta-llama/Llama-3.2-1B", "none"),
        ("none-tiny", "none"),
        ("mars-tiny", "mars"),
        ("mars", "mars"),
        ("moa-meta-llama/Llama-3.2-1B", "moa"),
        ("bon-tiny", "best_of_n"),
        ("moa&re2-tiny", "moa&re2"),
        ("bon|mcts-tiny", "best_of_n|mcts"),
        ("bon&moa|mcts-tiny", "best_of_n&moa|mcts"),
    ],
)
def test_the_name_of_the_model_says_which_optimizer(model: str, optimizer: str) -> None:
    assert name(model) == optimizer


def test_the_model_is_what_comes_behind_the_optimizer() -> None:
    assert approach("moa-meta-llama/Llama-3.2-1B").model == "meta-llama/Llama-3.2-1B"
    assert approach("moa-poet").adapter == "poet"
    assert approach("moa-tiny").adapter is None


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-moa-4", "model='gpt-moa-4': unknown"),
        ("deepthinker-tiny", "unknown"),
        ("moa-gpt", "model='gpt': unknown"),
        ("moa-bon-tiny", "for two optimizers write moa&bon-tiny"),
        ("tinny", "Did you mean 'tiny'"),
    ],
)
def test_an_unknown_model_is_told_and_never_asked_in_the_place_of_another(model: str, told: str) -> None:
    with pytest.raises(ModelNotFound, match=told):
        approach(model)


def test_a_tag_goes_before_the_body_and_the_body_before_the_name() -> None:
    assert name("moa-tiny", "re2", optillm_approach="bon") == "re2"
    assert name("moa-tiny", optillm_approach="bon") == "best_of_n"
    assert name("moa-tiny", optillm_approach="none") == "none"


def test_auto_is_what_the_name_says_or_else_the_optimizer_of_that_name() -> None:
    assert name("moa-tiny", optillm_approach="auto") == "moa"
    assert name("tiny", optillm_approach="auto") == "auto"


def test_an_approach_of_the_whole_door_is_for_requests_that_name_none() -> None:
    door = Known(["tiny"], approach="re2")
    assert name("tiny", known=door) == "re2"
    assert name("moa-tiny", known=door) == "moa"
    assert name("none-tiny", known=door) == "none"
    with pytest.raises(InvalidConfiguration, match="unknown"):
        Known(["tiny"], approach="re3")


@pytest.mark.parametrize(
    ("approach_", "option", "value"),
    [
        ("bon", "best_of_n.n", 8),
        ("mcts", "mcts_simulations", 4),
        ("mcts", "simulations", 4),
        ("bon|mcts", "best_of_n.n", 8),
    ],
)
def test_options_stand_beside_the_approach(approach_: str, option: str, value: int) -> None:
    body: dict[str, Any] = {"optillm_approach": approach_, option: value}
    optimizer: Any = approach("tiny", **body).optimizer
    member = optimizer.members[0] if "|" in approach_ else optimizer
    assert value in (getattr(member, "n", None), getattr(member, "simulations", None))


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        ("tiny", {"temprature": 1}, "temprature"),
        ("moa-tiny", {"temprature": 1}, "moa option temprature"),
        ("moa-tiny", {"layers": 0}, "moa option layers"),
        ("moa&bom-tiny", {}, "optimizer"),
        ("none|moa-tiny", {}, "optillm_approach"),
        ("tiny", {"optillm_approach": "z3"}, "optimizer"),
        ("tiny", {"optillm_approach": "moa&"}, "optimizer"),
        ("mars-tiny", {"path": "x.db"}, "path"),
        ("mars&moa-tiny", {"mars.path": "x.db"}, "mars.path"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(model: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises((InvalidConfiguration, RequestRejected)) as refused:
        approach(model, **body)
    assert refused.value.field == field


def test_tags_are_taken_out_of_every_message_and_the_first_counts() -> None:
    tag = "<optillm_approach>{}</optillm_approach>".format
    messages = [
        Message("user", f"{tag('moa')} one {tag('mcts')}"),
        Message("assistant", tag("bon")),
        Message("user", f"two {tag('re2')}"),
    ]
    cleaned, found = without_tags(messages)
    assert found == "moa"
    assert [message.content for message in cleaned] == ["one", tag("bon"), "two"]
    assert without_tags([*messages, Message("system", tag("rto"))])[1] == "rto"
