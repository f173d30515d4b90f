"""Optimizers by name: ours, those of installed packages, and those registered by the program.

A package adds optimizers through the entry-point group `optillm_local.optimizers`:
`my_name = "my_package.module:MyOptimizer"`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from optillm_local.core.client import ModelClient
from optillm_local.core.errors import InvalidConfiguration, did_you_mean
from optillm_local.core.optimizer import Optimizer

GROUP = "optillm_local.optimizers"

_BUILT_IN = {
    "single": "optillm_local.optimizers.single:Single",
    "best_of_n": "optillm_local.optimizers.best_of_n:BestOfN",
    "self_consistency": "optillm_local.optimizers.self_consistency:SelfConsistency",
    "mars": "optillm_local.optimizers.mars:Mars",
    "mcts": "optillm_local.optimizers.mcts:MCTS",
    "rstar": "optillm_local.optimizers.rstar:RStar",
    "beam_search": "optillm_local.optimizers.beam_search:BeamSearch",
    "particle_filtering": "optillm_local.optimizers.particle_filtering:ParticleFiltering",
    "tot": "optillm_local.optimizers.tot:TreeOfThoughts",
    "ab_mcts": "optillm_local.optimizers.ab_mcts:AdaptiveBranching",
    "majority_voting": "optillm_local.optimizers.majority_voting:MajorityVoting",
    "adaptive_consistency": "optillm_local.optimizers.adaptive_consistency:AdaptiveConsistency",
    "genselect": "optillm_local.optimizers.genselect:GenSelect",
    "diverse_sampling": "optillm_local.optimizers.diverse_sampling:DiverseSampling",
    "pvg": "optillm_local.optimizers.pvg:PVG",
    "auto": "optillm_local.optimizers.auto:Auto",
    "moa": "optillm_local.optimizers.moa:MixtureOfAgents",
    "cot_reflection": "optillm_local.optimizers.cot_reflection:ChainOfThoughtReflection",
    "re2": "optillm_local.optimizers.re2:ReReading",
    "rto": "optillm_local.optimizers.rto:RoundTripOptimization",
    "plansearch": "optillm_local.optimizers.plansearch:PlanSearch",
    "leap": "optillm_local.optimizers.leap:LearningPrinciples",
    "rsa": "optillm_local.optimizers.rsa:RecursiveSelfAggregation",
    "deepthink": "optillm_local.optimizers.deepthink:DeepThink",
    "cepo": "optillm_local.optimizers.cepo:CerebrasPlanning",
    "thinkdeeper": "optillm_local.optimizers.thinkdeeper:ThinkDeeper",
    "autothink": "optillm_local.optimizers.autothink:AutoThink",
    "cot_decoding": "optillm_local.optimizers.cot_decoding:CotDecoding",
    "entropy_decoding": "optillm_local.optimizers.entropy_decoding:EntropyDecoding",
    "deepconf": "optillm_local.optimizers.deepconf:DeepConf",
}
_COMBINED = {  # by symbol, the one that binds loosest first
    "|": "optillm_local.optimizers.combine:Vote",
    "&": "optillm_local.optimizers.combine:Then",
    "@": "optillm_local.optimizers.combine:Over",
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
        return _load(_BUILT_IN[name])
    for point in entry_points(group=GROUP, name=name):
        try:
            loaded: type[Optimizer] = point.load()
        except Exception as error:
            raise InvalidConfiguration("optimizer", name, f"{point.value} cannot be imported: {error}") from error
        return loaded
    raise InvalidConfiguration("optimizer", name, did_you_mean(name, names()))


def create(name: str, /, **options: Any) -> Optimizer:
    """An optimizer with its options set and checked; text such as "8" is read as the option's type.

    Optimizers combine: `a&b` is one after the other, `a|b` side by side with a vote, and `a@b` is `a` with every
    sample drawn by `b`; `@` binds tightest, then `&`. An option goes to the part that has it, and `part.option`
    says which.

    Raises:
        InvalidConfiguration: unknown optimizer or option ("did you mean"), or a value that cannot work.
    """
    for symbol in _COMBINED:
        if symbol in name:
            return _combine(symbol, name, options)
    kind = find(name)
    known = [option.name for option in options_of(kind)]
    for option, value in options.items():
        if option not in known:
            raise InvalidConfiguration(f"{name} option {option}", value, did_you_mean(option, known))
    try:
        return TypeAdapter(kind).validate_python(options)
    except ValidationError as error:
        raise InvalidConfiguration.of(error, lambda option: f"{name} option {option}") from None


def _load(target: str) -> type[Optimizer]:
    module, _, attribute = target.partition(":")
    found: type[Optimizer] = getattr(importlib.import_module(module), attribute)
    return found


def _combine(symbol: str, name: str, options: Mapping[str, Any]) -> Optimizer:
    parts = [part.strip() for part in name.split(symbol)]
    if not all(parts):
        raise InvalidConfiguration("optimizer", name, f"there must be an optimizer on both sides of {symbol!r}")
    meant: list[dict[str, Any]] = [{} for _ in parts]
    for option, value in options.items():
        _refuse_unless_clear(name, option, value)
        owner, _, its = option.rpartition(".")
        for part, chosen in zip(parts, meant, strict=True):
            if _owners(part, option):
                chosen[its if part == owner else option] = value
    made = tuple(create(part, **chosen) for part, chosen in zip(parts, meant, strict=True))
    combinator: Any = _load(_COMBINED[symbol])
    combined: Optimizer = combinator(members=made)
    return combined


def _refuse_unless_clear(name: str, option: str, value: Any) -> None:
    """Raises InvalidConfiguration if no optimizer in a combination has the option, or more than one."""
    owners = _owners(name, option)
    if not owners:
        known = [f"{leaf}.{its}" if "." in option else its for leaf, its in _options_within(name)]
        raise InvalidConfiguration(f"{name} option {option}", value, did_you_mean(option, set(known)))
    if len(owners) > 1:
        choices = " or ".join(f"{owner}.{option}" for owner in owners)
        raise InvalidConfiguration(f"{name} option {option}", value, f"say which: {choices}")


def _owners(name: str, option: str) -> list[str]:
    """The optimizers in a combination that an option is for; it may say itself which."""
    return sorted({leaf for leaf, its in _options_within(name) if option in (its, f"{leaf}.{its}")})


def _options_within(name: str) -> list[tuple[str, str]]:
    """Every optimizer in a combination with each of its options."""
    leaves = map(str.strip, re.split(r"[|&@]", name))
    return [(leaf, option.name) for leaf in leaves for option in options_of(find(leaf))]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an optimizer, for tables and help texts."""

    name: str
    type: str
    default: Any
    description: str


def options_of(kind: type[Optimizer]) -> list[Option]:
    """The options of an optimizer in the order of its fields; one that is no dataclass or model has none."""
    types: dict[str, Any] = {}
    with suppress(NameError):  # a type that only its own function knows is told as it is written
        types = get_type_hints(kind)
    if issubclass(kind, BaseModel):
        return [
            Option(name, _type_name(types.get(name)), about.get_default(), about.description or "")
            for name, about in kind.model_fields.items()
        ]
    found: list[Option] = []
    declared: tuple[Field[Any], ...] = fields(kind) if is_dataclass(kind) else ()
    for field in declared:
        default: Any = field.default
        description = ""
        if isinstance(default, FieldInfo):
            default, description = default.default, default.description or ""
        named = _type_name(types.get(field.name, field.type))
        found.append(Option(field.name, named, None if default is MISSING else default, description))
    return found


def _type_name(annotation: Any) -> str:
    """A type as one would write it."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    told = re.sub(r"\b(?:[a-z_]+\.)+", "", str(annotation)).replace("'", '"')
    return re.sub(r"Optional\[(\w+)\]", r"\1 | None", told)


def options_as_dict(optimizer: Optimizer) -> Mapping[str, Any]:
    """What an optimizer was set to, for the record."""
    return {option.name: recorded(getattr(optimizer, option.name)) for option in options_of(type(optimizer))}


def described(kind: type[Optimizer]) -> dict[str, Any]:
    """What an optimizer is and its options, as JSON has it."""
    options = [
        {"name": o.name, "type": o.type, "default": spelled(o.default), "description": o.description}
        for o in options_of(kind)
    ]
    about = {"description": kind.description, "source": kind.source, "options": options}
    plain: dict[str, Any] = to_jsonable_python(about, inf_nan_mode="null", fallback=str)
    return plain


def spelled(value: Any) -> Any:
    """A default as one would write it: what has a name goes by it where its own options are at their defaults."""
    plain = recorded(value)
    return plain["name"] if isinstance(plain, dict) and "name" in plain and value == type(value)() else plain


def recorded(value: Any) -> Any:
    """The value of an option as it goes on the record: what has options itself, as a mapping of them."""
    if isinstance(value, tuple):
        return tuple(map(recorded, value))
    if isinstance(value, ModelClient):
        return value.model
    if isinstance(value, Optimizer):
        return {"name": value.name, **options_as_dict(value)}
    if is_dataclass(value) and not isinstance(value, type) and hasattr(value, "name"):
        return {"name": value.name} | {field.name: recorded(getattr(value, field.name)) for field in fields(value)}
    return value
