r"""Tell which answers are the same answer.

Three tests, cheapest first; a later one is asked only what an earlier one cannot know:

1. Equal normal forms (`normalize`). Numbers have one form per value: 0.5, 1/2 and \frac{1}{2} are
   equal, 1/3 and 0.333333 are not. A unit is dropped, because the question fixes it: $15,
   "15 apples" and 15 are equal, and so are 50% and 50 (the rule of Math-Verify's grader), but not
   50% and 0.5. The price is that "2 hours" equals "2 minutes".
2. Two plain numbers, or anything and a word, with different normal forms are different.
3. What is left is a formula against a formula or a number; Math-Verify (Hugging Face, 2025)
   decides, in a worker process of anyio's pool, as sympy may run forever (9^{9^{9^9}}) and only a
   process can be killed.

The worker imports the caller's main module, as every spawned process does: a script needs its
``if __name__ == "__main__":``.
"""

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import anyio
from anyio import BrokenWorkerProcess, to_process
from anyio.lowlevel import RunVar

from optillm_local.answers.extract import is_formula, tidy

START_S = 60.0
"""Allowance in seconds for a worker to start and import sympy; on a busy machine it takes many."""

# One comparison at a time in each event loop, so that a worker that was just warmed up is not
# taken by another task, and so that there is one sympy in memory.
_turn: RunVar[anyio.Lock] = RunVar("optillm_local.answers.equal._turn")

_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),
        (r"\\[!,]|\\(?:left|right)(?![A-Za-z])|\^?\{?\\circ\}?", ""),
        (r"\\[;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it))\s*\{([^{}]*)\}", r" \1 "),
        (r"\\([%$#])", r"\1"),
        (r"\s+", " "),
    )
)
_SYMBOLS = str.maketrans(
    {"\u2212": "-", "\u00b2": "^2", "\u00b3": "^3", "\u00b7": r"\cdot ", "\u221e": r"\infty ", "\u00b0": ""}
)

_FRACTION = re.compile(r"\\frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)\s*(\d)(?!\d))")
_AMOUNT = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£¥₹]?\s*(?P<minus>-?)"
    r"(?:(?P<whole>\d+)\s+(?=\d+\s*/))?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?P<exponent>e[-+]?\d{1,3})?"
    r"(?:\s*/\s*(?P<denominator>\d+))?"
    r"(?P<scale>\s+(?:thousand|million|billion|trillion)\b)?"
    r"(?P<unit>.*)"
)
_LONGEST_AMOUNT = 100
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_UNIT = re.compile(
    r"\s*(?:%|[€£¥₹]|[kcm]m\b|[km]?g\b|ml\b|mph\b|k?wh\b|usd\b|eur\b)?"
    r"(?P<words>(?:\s+[^\W\d_]+(?:\^?\{?[23]\}?)?(?:/[^\W\d_]+(?:\^?\{?[23]\}?)?)?){0,3})"
)
_SHORT_UNITS = frozenset("ghlms")
# Words that change the amount, or say that the number is not one.
_NOT_UNITS = frozenset(
    "hundred dozen score half halves third thirds quarter quarters fourths fifth fifths eighths tenths "
    "hundredths thousandths pair pairs and or to pi mod plus minus times over below under above before "
    "after ago more less left am pm ad bc ce bce squared cubed factorial north south east west".split()
)


def normalize(answer: str) -> str:
    """The form in which two spellings of the same answer are the same string.

    An amount becomes its exact value ("1/2", "1234"), a formula loses its spaces, and words lose
    their case, closing punctuation and leading article. Idempotent.
    """
    text = _respell(answer)
    if (value := _amount(text)) is not None:
        return str(value)
    if is_formula(text):
        return text.replace(" ", "")
    words = re.sub(r"\s*,\s*", ",", text.casefold()).strip(" !?\"'")
    return re.sub(r"^(?:the|an?) (?=.)", "", words)


async def equivalence_classes(
    answers: Sequence[str | None], *, timeout_s: float = 2.0
) -> list[int | None]:
    """The class of each answer, numbered from 0 by first appearance; None stays None.

    An answer joins the first class whose first member it equals: equality of formulas is not
    transitive ("x = 5" equals 5, and 5 equals "y = 5"). One that cannot be compared within
    `timeout_s` is alone with its literal repetitions. There are at most as many timed calls to the
    worker as distinct answers, and none where all answers are plain numbers or words.
    """
    keys = [None if answer is None else normalize(answer) for answer in answers]
    distinct: dict[str, str] = {}
    for key, answer in zip(keys, answers, strict=True):
        if key is not None and answer is not None:
            distinct.setdefault(key, answer)
    first_equal = await _first_equals(distinct, timeout_s)
    index: dict[str, int] = {}
    return [None if key is None else index.setdefault(first_equal[key], len(index)) for key in keys]


async def _first_equals(distinct: dict[str, str], timeout_s: float) -> dict[str, str]:
    """For each normal form in `distinct`, the first one whose answer is the same."""
    first_equal = {key: key for key in distinct}
    numbers = {key for key in distinct if _amount(key) is not None}
    formulas = {key: key if key in numbers else _latex(distinct[key]) for key in distinct}
    formulas = {key: latex for key, latex in formulas.items() if key in numbers or is_formula(latex)}
    if len(formulas) < 2 or formulas.keys() <= numbers:
        return first_equal
    async with _worker_turn():
        known: list[str] = []
        for key, latex in formulas.items():
            rivals = [rival for rival in known if not {key, rival} <= numbers]
            ...
    return first_equal
