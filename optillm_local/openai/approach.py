"""Which optimizer a request means: its tag, its body, the name of its model, or nobody's wish."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optillm_local import registry
from optillm_local.core.errors import InvalidConfiguration, ModelNotFound, RequestRejected, did_you_mean
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Message
from optillm_local.openai.request import LONGEST_APPROACH, ChatRequest, CompletionRequest

Request = ChatRequest | CompletionRequest

NONE, AUTO = "none", "auto"
_SLUGS = {"bon": "best_of_n"}
"""What codelion's optillm calls optimizers that have another name here."""
_OPTIONS = {f"mcts_{name}": f"mcts.{name}" for name in ("simulations", "exploration", "depth")}
"""What optillm calls options that a request may set."""
_SYMBOLS = re.compile(r"([|&@])")
_TAG = re.compile(r"<optillm_approach>(.*?)</optillm_approach>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Approach:
    """Who answers: an optimizer, or the model itself where there is none, with the LoRA module `adapter`."""

    model: str
    optimizer: Optimizer | None
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """What a request may name: models, adapters of the model, and what answers where it names no optimizer."""

    names: Sequence[str]
    adapters: Sequence[str] = ()
    approach: str = NONE

    def __post_init__(self) -> None:
        _optimizer(self.approach, {})  # not with the first request

    def approach_of(self, request: Request, tagged: str) -> Approach:
        """Who answers a request in whose messages `tagged` stands.

        A tag goes before the body, and the body before the model's name; `auto` there means what the name says,
        and the optimizer of that name where it says nothing.

        Raises:
            ModelNotFound: no such model, or no such optimizer before it.
            InvalidConfiguration: an optimizer or an option that does not exist, or a value that cannot work.
            RequestRejected: options, and no optimizer to have them.
        """
        named, model = self._split(request.model)
        if len(tagged) > LONGEST_APPROACH:
            raise RequestRejected("optillm_approach", tagged[:LONGEST_APPROACH], "the tag is too long")
        asked = tagged or (request.optillm_approach or "").strip()
        chosen = (named or asked) if asked == AUTO else (asked or named or self.approach)
        return Approach(model, _optimizer(chosen, request.options), model if model in self.adapters else None)

    def _split(self, name: str) -> tuple[str, str]:
        """The optimizer before a model's name, empty if there is none, and the model."""
        models = [*self.names, *self.adapters]
        if not name or name in models:
            return "", name or self.names[0]
        before, _, model = name.partition("-")
        if not _is_approach(before):
            hint = f"{did_you_mean(name, models)}; an optimizer goes before it: mars-{self.names[0]}"
            raise ModelNotFound(f"model={name[:200]!r}: {hint}")
        if model and model not in models:
            second, _, rest = model.partition("-")
            hint = f"; for two optimizers write {before}&{second}-{rest}" if _is_approach(second) else ""
            raise ModelNotFound(f"model={model[:200]!r}: {did_you_mean(model, models)}{hint}")
        return before, model or self.names[0]


def without_tags(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
    """The messages without tags, and what the first tag says: of the system messages, or else of the user's."""
    tagged = {"system": "", "user": ""}
    cleaned = []
    for message in messages:
        if message.role in tagged and (found := _TAG.search(message.content)):
            tagged[message.role] = tagged[message.role] or found[1].strip()
            message = replace(message, content=_TAG.sub("", message.content).strip())
        cleaned.append(message)
    return tuple(cleaned), tagged["system"] or tagged["user"]


def _is_approach(text: str) -> bool:
    """Whether a text before a model's name is meant as an optimizer, if only by its symbols."""
    if _SYMBOLS.search(text) or text == NONE:
        return True
    try:
        registry.find(_named(text))  # and not `names`, which looks through every installed package
    except InvalidConfiguration:
        return False
    return True


def _optimizer(spelled: str, given: Mapping[str, Any]) -> Optimizer | None:
    if spelled == NONE:
        if given:
            name, value = next(iter(given.items()))
            known = [*ChatRequest.model_fields, *CompletionRequest.model_fields]
            remedy = f"{did_you_mean(name[:80], known)}; options need an optimizer: optillm_approach"
            raise RequestRejected(name[:80], type(value).__name__, remedy)
        return None
    parts = [part if _SYMBOLS.fullmatch(part) else _named(part.strip()) for part in _SYMBOLS.split(spelled)]
    if NONE in parts:
        raise InvalidConfiguration("optillm_approach", spelled[:200], "none is the model; it does not combine")
    name = "".join(parts)
    options = {_option(name, option): value for option, value in given.items()}
    _refuse_files(name, options)
    return registry.create(name, **options)


def _named(part: str) -> str:
    return _SLUGS.get(part, part)


def _option(optimizer: str, option: str) -> str:
    """An option as the registry spells it: `best_of_n.n` is how an option is called that a parameter hides."""
    option = _OPTIONS.get(option, option)
    return option.removeprefix(f"{optimizer}.")


def _refuse_files(name: str, options: Mapping[str, Any]) -> None:
    """Raises InvalidConfiguration for options that name files: a request is a stranger's."""
    for part in _SYMBOLS.split(name)[::2]:
        for option in registry.options_of(registry.find(part)):
            for spelled in (option.name, f"{part}.{option.name}"):
                if "Path" in option.type and spelled in options:
                    raise InvalidConfiguration(
                        spelled, options[spelled], "a request cannot name files; use asolve"
                    )
