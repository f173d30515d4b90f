r"""Tell which answers are the same answer.

Three tests, cheapest first; a later one is asked only what an earlier one cannot know:

1. Equal normal forms (`normalize`). Numbers have one form per value: 0.5, 1/2 and \frac{1}{2} are
   equal, 1/3 and 0.333333 are not. A unit is dropped, because the question fixes it: $15,
   "15 apples" and 15 are equal, and so are 50% and 50 (the rule of Math-Verify's grader), but not
   50% and 0.5. The price is that "2 hours" equals "2 minutes".
2. Two plain numbers, or anything and a word, with different normal forms are different.
3. What is left is a formula against a formula or a number. Math-Verify (Hugging Face, 2025)
   decides, in a worker process of anyio's pool: sympy may run forever (9^{9^{9^9}}), and only a
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
"""Allowance in seconds for a worker to start and import sympy: 1 s when idle, many when busy."""

# One comparison at a time in each event loop: a worker that was just warmed up is not taken by
# another task, and there is one sympy in memory.
_turn: RunVar[anyio.Lock] = RunVar("optillm_local.answers.equal._turn")

_SYMBOLS = str.maketrans({"\u00b2": "^2", "\u00b3": "^3", "\u00b7": r"\cdot ", "\u221e": r"\infty "})
_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),
        (r"(?<!\\)\\[!,]|\\(?:left|right)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it))\s*\{([^{}]*)\}", r" \1 "),
        (r"(?:\u00b0|\^\s*\{?\s*\\circ\s*\}?)(?:\s*[CF](?![A-Za-z]))?", ""),
        (r"\\([%$#])", r"\1"),
        (r"\s+", " "),
    )
)
# What people and Python write, in the LaTeX that Math-Verify reads; it takes "sin x" for s·i·n·x.
_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*", "^"),
        (r"\^(-\w+)", r"^{\1}"),
        (r"(?<![\\A-Za-z])(pi|sin|cos|tan|ln|log|exp)(?![A-Za-z])", r"\\\1"),
        (r"\$", ""),
    )
)

_FRACTION = re.compile(r"\\frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)\s*(\d)(?!\d))")
_AMOUNT = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£¥₹]?\s*(?P<minus>-?)"
    r"(?:(?P<whole>\d+)\s+(?=\d+\s*/))?"
    r"(?P<number>(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?)"
    r"(?:\s*/\s*(?P<denominator>\d+))?"
    r"(?:\s+(?P<scale>thousand|million|billion|trillion)\b)?"
    r"(?P<unit>.*)"
)
_LONGEST_AMOUNT = 100
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNIT = re.compile(
    r"\s*(?:%|[€£¥₹]|(?:[kcm]m|[km]?g|ml|mph|k?wh|usd|eur)\b)?"
    r"(?:\s+[^\W\d_]+(?:\^?\{?[23]\}?)?(?:/[^\W\d_]+(?:\^?\{?[23]\}?)?)?){0,3}\s*"
)
_SHORT_UNITS = "ghlms"
# Words that change the amount, or that make something else of the number.
_NOT_A_UNIT = re.compile(
    r"hundred|dozen|score|pairs?|half|halves|quarters?|thirds?|(?:four|fif|eigh|ten|hundred|thousand)ths?"
    r"|squared|cubed|factorial|pi|and|or|to|mod|plus|minus|times|over|under|above|below|more|less|left"
    r"|before|after|ago|am|pm|ad|bc|b?ce|north|south|east|west"
)


def normalize(answer: str) -> str:
    """The form in which two spellings of the same answer are the same string.

    An amount becomes its exact value ("1/2", "1234"), a formula loses its spaces, and words lose
    their case, outer punctuation and leading article.
    """
    text = _respell(answer)
    if (value := _amount(text)) is not None:
        return str(value)
    if is_formula(text):
        return re.sub(r"(?<!\w) | (?!\w)", "", text)
    words = re.sub(r"\s*,\s*", ",", text.casefold()).strip(" .,;:!?\"'*")
    return re.sub(r"^(?:(?:the|an?) )+(?=.)", "", words)


async def equivalence_classes(answers: Sequence[str | None], *, timeout_s: float = 2.0) -> list[int | None]:
    """The class of each answer, numbered from 0 by first appearance; None stays None.

    An answer joins the first class whose first member it equals: equality of formulas is not
    transitive ("x = 5" equals 5, and 5 equals "y = 5"). A formula that cannot be compared within
    `timeout_s` equals only its own spellings. There is at most one timed call to the worker for
    each distinct answer, and none where all answers are plain numbers or words.
    """
    keys = [None if answer is None else normalize(answer) for answer in answers]
    formulas: dict[str, str] = {}
    for key, answer in zip(keys, answers, strict=True):
        if key is not None and answer is not None and (latex := _latex(answer)) is not None:
            formulas.setdefault(key, latex)
    first_equal = await _first_equals(formulas, timeout_s)
    index: dict[str, int] = {}
    return [None if key is None else index.setdefault(first_equal.get(key, key), len(index)) for key in keys]


def _respell(answer: str) -> str:
    text = tidy(answer).translate(_SYMBOLS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return tidy(text)


def _amount(text: str) -> Fraction | None:
    """The value of a text that is one number, with or without currency, scale and unit."""
    text = _FRACTION.sub(lambda ratio: f" {ratio[1] or ratio[3]}/{ratio[2] or ratio[4]}", text)
    amount = _AMOUNT.fullmatch(text.strip().casefold()) if len(text) <= _LONGEST_AMOUNT else None
    if amount is None or not _is_unit(amount["unit"]):
        return None
    whole, denominator = int(amount["whole"] or 0), int(amount["denominator"] or 1)
    number = Fraction(amount["number"].replace(",", ""))
    if denominator == 0 or (amount["whole"] and number >= denominator):
        return None
    value = (whole + number / denominator) * _SCALES.get(amount["scale"], 1)
    return -value if (amount["sign"] == "-") != (amount["minus"] == "-") else value


def _is_unit(text: str) -> bool:
    if not _UNIT.fullmatch(text):
        return False
    words = re.findall(r"[^\W\d_]+", text)
    return not any(_NOT_A_UNIT.fullmatch(word) or (len(word) == 1 and word not in _SHORT_UNITS) for word in words)


def _latex(answer: str) -> str | None:
    """What Math-Verify is given for `answer`; None if it is words."""
    text = _respell(answer)
    if (value := _amount(text)) is not None:
        return str(value)
    if not is_formula(text):
        return None
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


async def _first_equals(formulas: dict[str, str], timeout_s: float) -> dict[str, str]:
    """Map the normal form of a formula to the first one that it equals, where that is another."""
    numbers = {key for key in formulas if _amount(key) is not None}
    if len(formulas) < 2 or formulas.keys() == numbers:
        return {}
    async with _lock():
        try:
            await _warm_up()
        except (BrokenWorkerProcess, TimeoutError) as error:
            warnings.warn(f"no worker, so formulas are compared as text: {error}", RuntimeWarning, stacklevel=2)
            return {}
        return await _join_classes(formulas, numbers, timeout_s)


async def _join_classes(formulas: dict[str, str], numbers: set[str], timeout_s: float) -> dict[str, str]:
    first_equal: dict[str, str] = {}
    known: list[str] = []
    for key, latex in formulas.items():
        rivals = [rival for rival in known if not {key, rival} <= numbers]
        if key in numbers and not rivals:
            known.append(key)
            continue
        try:
            found = await _compare(latex, [formulas[rival] for rival in rivals], timeout_s)
        except (BrokenWorkerProcess, TimeoutError):
            continue  # kept out of `known`, where it would use up the time of all that follow
        if found is None:
            known.append(key)
        else:
            first_equal[key] = rivals[found]
    return first_equal


async def _compare(latex: str, rivals: list[str], timeout_s: float) -> int | None:
    await _warm_up()  # the last comparison may have had its worker killed
    with anyio.fail_after(timeout_s):
        return await to_process.run_sync(_first_equal, latex, rivals, cancellable=True)


async def _warm_up() -> None:
    """Have a worker with sympy imported and in use, so that no answer's time is spent on that."""
    with anyio.fail_after(START_S):
        await to_process.run_sync(_load, cancellable=True)


def _lock() -> anyio.Lock:
    try:
        return _turn.get()
    except LookupError:
        _turn.set(lock := anyio.Lock())
        return lock


# From here on: what runs in the worker. Only there is sympy imported, which takes about a second.

_PROBE = r"\pi"


def _load() -> None:
    # Not the import alone: the first formula takes 0.4 s, the next ones 0.02 to 0.1 s.
    _is_same("x^2", _PROBE)


def _first_equal(latex: str, rivals: list[str]) -> int | None:
    """The index of the first of `rivals` that equals `latex`."""
    # A formula that nothing can be compared with must show it now, before it is anyone's rival.
    _is_same(latex, _PROBE)
    return next((index for index, rival in enumerate(rivals) if _is_same(latex, rival)), None)


@lru_cache(maxsize=1024)
def _is_same(left: str, right: str) -> bool:
    from math_verify import verify

    # `verify` lets only its second argument be an equation where the first is a value.
    pair = _parse(left), _parse(right)
    return any(verify(gold, target, timeout_seconds=None) for gold, target in (pair, pair[::-1]))


@lru_cache(maxsize=1024)
def _parse(latex: str) -> Any:
    from math_verify import LatexExtractionConfig, parse

    # Its own time limits are signals, which the process that may be killed does not need.
    config = [LatexExtractionConfig()]
    return parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None)
