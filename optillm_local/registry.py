"""Optimizers by name: ours, those of installed packages, and those registered by the program.

A package adds optimizers through the entry-point group `optillm_local.optimizers`:
`my_name = "my_package.module:MyOptimizer"`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from optillm_local.core.errors import InvalidConfiguration, did_you_mean
from optillm_local.core.optimizer import Optimizer

GROUP = "optillm_local.optimizers"

_BUILT_IN = {
    "single": "optillm_local.optimizers.single:Single",
    "best_of_n": "optillm_local.optimizers.best_of_n:BestOfN",
    "self_consistency": "optillm_local.optimizers.self_consistency:SelfConsistency",
    "mars": "optillm_local.optimizers.mars:Mars",
}
_registered: dict[str, type[Optimizer]] = {}

T = TypeVar("T", bound=type[Optimizer])


def register(optimizer: T) -> T:
    """Class decorator: makes an optimizer of this program known by its `name`."""
    _registered[optimizer.name] = optimizer
    return optimizer


def names() -> list[str]:
    """Every known name, sorted."""
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> type[Optimizer]:
    """The optimizer class of that name.

    Raises:
        InvalidConfiguration: there is none.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: type[Optimizer] = getattr(importlib.import_module(module), attribute)
        return found
    for point in entry_points(group=GROUP, name=name):
        try:
            loaded: type[Optimizer] = point.load()
        except Exception as error:
            raise InvalidConfiguration("optimizer", name, f"{point.value} cannot be imported: {error}") from error
        return loaded
    raise InvalidConfiguration("optimizer", name, did_you_mean(name, names()))


def create(name: str, /, **options: Any) -> Optimizer:
    """An optimizer with its options set and checked; text such as "8" is read as the option's type.

    Raises:
        InvalidConfiguration: unknown optimizer or option ("did you mean"), or a value that cannot work.
    """
    kind = find(name)
    known = [option.name for option in options_of(kind)]
    for option, value in options.items():
        if option not in known:
            raise InvalidConfiguration(f"{name} option {option}", value, did_you_mean(option, known))
    try:
        return TypeAdapter(kind).validate_python(options)
    except ValidationError as error:
        raise InvalidConfiguration.of(error, lambda option: f"{name} option {option}") from None


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an optimizer, for tables and help texts."""

    name: str
    type: str
    default: Any
    description: str


def options_of(kind: type[Optimizer]) -> list[Option]:
    """The options of an optimizer in the order of its fields; one that is no dataclass or model has none."""
    if issubclass(kind, BaseModel):
        return [
            Option(name, _type_name(about.annotation), about.get_default(), about.description or "")
            for name, about in kind.model_fields.items()
        ]
    found: list[Option] = []
    declared: tuple[Field[Any], ...] = fields(kind) if is_dataclass(kind) else ()
    for field in declared:
        default: Any = field.default
        description = ""
        if isinstance(default, FieldInfo):
            default, description = default.default, default.description or ""
        named: str = getattr(field.type, "__name__", str(field.type))
        found.append(Option(field.name, named, None if default is MISSING else default, description))
    return found


def _type_name(annotation: Any) -> str:
    """A type as one would write it."""
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else re.sub(r"\b(?:[a-z_]+\.)+", "", str(annotation)).replace("'", '"')


def options_as_dict(optimizer: Optimizer) -> Mapping[str, Any]:
    """What an optimizer was set to, for the record."""
    return {option.name: getattr(optimizer, option.name) for option in options_of(type(optimizer))}
