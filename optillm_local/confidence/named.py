"""Scorers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from optillm_local.confidence import likelihood as measured
from optillm_local.confidence.comparison import Tournament
from optillm_local.confidence.lineup import Lineup
from optillm_local.confidence.scorer import Scorer
from optillm_local.confidence.verdict import Levels, PCorrect
from optillm_local.core.errors import InvalidConfiguration, did_you_mean


class Named(NamedTuple):
    """A scorer as a name stands for it."""

    kind: type[Scorer]
    options: Mapping[str, Any] = {}
    meaning: str = ""


SCORERS: Mapping[str, Named] = {
    "verifier": Named(PCorrect, {}, "P(correct), read at once"),
    "review": Named(PCorrect, {"reviews": 1}, "P(correct), read after a written review"),
    "votes": Named(PCorrect, {"reviews": 5, "votes": True}, "share of five reviews that find it correct"),
    "levels": Named(Levels, {}, "expected grade of twenty, over three criteria"),
    "pairwise": Named(Tournament, {}, "comparisons won, of all with all"),
    "tournament": Named(Tournament, {"pivots": 3}, "comparisons won against three pivots"),
    "lineup": Named(Lineup, {}, "P(best), when all are shown together in every rotation"),
    "genselect": Named(Lineup, {"reviews": 1}, "the same, read after a written comparison"),
    **{kind.name: Named(kind, {}, (kind.__doc__ or "").partition("\n")[0].rstrip(".")) for kind in measured.KINDS},
}


def scorer(given: str | Mapping[str, Any] | Scorer) -> Scorer:
    """A scorer from its name, or from a mapping with `name` and options; a scorer is returned as it is.

    Raises:
        InvalidConfiguration: an unknown name or option, or a value that cannot work.
    """
    if isinstance(given, Scorer):
        return given
    options = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InvalidConfiguration("scorer", given, "give a name, or a mapping with a name and options")
    if name not in SCORERS:
        raise InvalidConfiguration("scorer", name, did_you_mean(name, SCORERS))
    kind, preset, _ = SCORERS[name]
    declared: Any = kind  # each is made by `frozen_options`
    known = [field.name for field in fields(declared)]
    for option, value in options.items():
        if option not in known:
            raise InvalidConfiguration(f"scorer {name} option {option}", value, did_you_mean(option, known))
    try:
        return TypeAdapter(kind).validate_python({**preset, **options})
    except ValidationError as error:
        raise InvalidConfiguration.of(error, lambda option: f"scorer {name} option {option}") from None
