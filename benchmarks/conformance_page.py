"""How our optimizers differ from codelion's optillm, as a page, and the notation of calls that it is written in.

The differences and their reasons are in tests/conformance/cases.toml; what codelion calls was recorded by
benchmarks/conformance.py. The tests compare both with the calls that ours make. Write the page with:

    python benchmarks/conformance_page.py
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "conformance" / "cases.toml"
RECORD = ROOT / "tests" / "conformance" / "codelion-0.4.0.json"
PAGE = ROOT / "docs" / "conformance.md"
MAX_TOKENS = 4096
READ = ", read"

Calls = Counter[str]


def sampled(roles: Sequence[str], temperature: float | None, max_tokens: int | None, top_p: float | None) -> str:
    """A sequence such as `S U A U, T 0.1, 256`; what is not sent is what the server takes instead."""
    drawn = f"T {1 if temperature is None else temperature:g}, {MAX_TOKENS if max_tokens is None else max_tokens}"
    cut = "" if top_p in (None, 1) else f", top_p {top_p:g}"
    return f"{initials(roles)}, {drawn}{cut}"


def read(roles: Sequence[str]) -> str:
    """A read, which samples nothing: `S U A U, read`."""
    return initials(roles) + READ


def initials(roles: Sequence[str]) -> str:
    """Roles by their first letters."""
    return " ".join(role[0].upper() for role in roles)


def recorded(about: Mapping[str, Any]) -> Calls:
    """The sequences of one of codelion's approaches; a call with n is n of them."""
    found: Calls = Counter()
    for one in about["expanded"]:
        found[sampled(one["roles"], one["temperature"], one["max_tokens"], one["top_p"])] += one["sequences"]
    return found


class Deviation(NamedTuple):
    """Calls of codelion's, ours in the place of them, and why."""

    theirs: Calls
    ours: Calls
    why: str


@dataclass(frozen=True)
class Section:
    """An approach of codelion's and ours; see cases.toml.

    Attributes:
        theirs: codelion's sequences; None if they were not recorded.
    """

    here: str
    approach: str
    gist: str
    script: Mapping[str, str]
    deviations: Sequence[Deviation]
    others: Sequence[str]
    theirs: Calls | None

    @property
    def ours(self) -> Calls:
        """The calls that ours make."""
        return sum((one.ours for one in self.deviations), self.same)

    @property
    def same(self) -> Calls:
        """The calls that both make.

        Raises:
            ValueError: a deviation is from calls that codelion does not make.
        """
        same = Counter(self.theirs or {})
        for deviation in self.deviations:
            same.subtract(deviation.theirs)
        if wrong := [call for call, count in same.items() if count < 0]:
            raise ValueError(f"{self.approach}: codelion makes fewer calls {wrong}")
        return +same

    @property
    def reads(self) -> int:
        """How many of ours are reads."""
        return sum(count for call, count in self.ours.items() if call.endswith(READ))


def sections(cases: Mapping[str, Any]) -> list[Section]:
    """The sections of the page, with what was recorded of codelion."""
    record = json.loads(RECORD.read_text())
    return [
        Section(
            here=one["here"],
            approach=one["approach"],
            gist=one["gist"],
            script=one.get("script", {}),
            deviations=[
                Deviation(Counter(call.get("theirs", {})), Counter(call.get("ours", {})), call["why"])
                for call in one.get("calls", [])
            ],
            others=one.get("others", []),
            theirs=recorded(record[one["approach"]]) if one["approach"] in record else None,
        )
        for one in cases["section"]
    ]


def page() -> str:
    """The page as Markdown."""
    cases = tomllib.loads(CASES.read_text())
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701 - Markdown
    environment.filters |= {"calls": in_words, "cell": lambda text: text.replace("|", r"\|")}
    return environment.from_string(TEMPLATE).render(cases | {"sections": sections(cases)})


def in_words(calls: Calls) -> str:
    """Calls in a cell of a table."""
    return "<br>".join(f"{count} x `{call}`" for call, count in calls.items()) or "-"


TEMPLATE = """\
# What differs from codelion's optillm

Written by `python benchmarks/conformance_page.py` from `tests/conformance/cases.toml`, and checked by the tests.

At the defaults, our optimizers make the calls of codelion's optillm 0.4.0, except where a table below says what
they do instead and why. Both answer one question on a scripted model whose replies make them go their full way;
codelion's calls were recorded from its own code (`benchmarks/conformance.py`). Order is not compared.

`S U A U, T 0.1, 256` is a sequence: the first letters of the roles, temperature, most tokens, and top_p if it cuts
anything off. `S U A U, read` is a read: probabilities of verdicts are taken from one step, and nothing is sampled.

## At a glance

{% for one in general %}
* {{ one }}
{% endfor %}

| codelion | here | sequences there | here | in short |
|---|---|---|---|---|
{% for one in sections %}
| `{{ one.approach | cell }}` | `{{ one.here | cell }}` |
{%- if one.theirs %} {{ one.theirs.total() }} | {{ one.ours.total() - one.reads }}
{%- if one.reads %} + {{ one.reads }} reads{% endif %}{% else %} - | -{% endif %} | {{ one.gist }} |
{% endfor %}

Only here:

{% for name, about in only_here.items() %}
* `{{ name }}`: {{ about }}
{% endfor %}

Not here:

{% for name, about in not_here.items() %}
* `{{ name }}`: {{ about }}
{% endfor %}
{% for one in sections %}

## `{{ one.here }}`{% if one.here != one.approach %} for codelion's `{{ one.approach }}`{% endif %}


{% if one.theirs %}
| codelion | here | why |
|---|---|---|
{% for call, count in one.same.items() %}
| {{ {call: count} | calls }} | the same | |
{% endfor %}
{% for row in one.deviations %}
| {{ row.theirs | calls }} | {{ row.ours | calls }} | {{ row.why }} |
{% endfor %}

{% endif %}
{% for text in one.others %}
* {{ text }}
{% endfor %}
{% endfor %}
"""


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"page in {PAGE}")
