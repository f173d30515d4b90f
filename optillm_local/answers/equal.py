r"""Tell which answers are the same answer.

Three tests, cheapest first; a later one is asked only what an earlier one cannot know:

1. Equal normal forms (`normalize`). Code has the form that `optillm_local.answers.code` gives it.
   Numbers have one form per value: 0.5, 1/2 and \frac{1}{2} are equal, 1/3 and 0.333333 are not. A
   unit is dropped, because the question fixes it: $15, "15 apples" and 15 are equal, and so are 50%
   and 50 (the rule of Math-Verify's grader), but not 50% and 0.5. The price is that "2 hours" equals
   "2 minutes".
2. Two plain numbers, or anything and a word or code, with different normal forms are different.
3. What is left is a formula against a formula or a number. Math-Verify (Hugging Face, 2025)
   decides, in a process that is killed when it takes too long: sympy may run forever (9^{9^{9^9}}).
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from optillm_local.answers._process import NoVerdict, NoWorker, Worker
from optillm_local.answers.code import normal_code, unfenced
from optillm_local.answers.extract import is_formula, tidy

_worker = Worker()
# Of each event loop one thread waits for the worker: the rest of its pool is for others.
_waiting: RunVar[anyio.CapacityLimiter] = RunVar("optillm_local.answers.equal._waiting")

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

# "1, 234" is a list and "1. 5" an item of one: without their spaces they would be numbers.
_COMMA = re.compile(r" ?,(?: (?!\d{3}(?!\d)))?")
_SPACE = re.compile(r"(?<![\w,.]) | (?![\w.])")
_PUNCTUATION = " .,;:!?\"'*"
_ARTICLE = re.compile(rf"^(?:(?:the|an?) [{_PUNCTUATION}]*)+(?=.)")
# A form may be of another kind than the answer: "The 0.50" is words, and "0.50" is a number.
_MOST_ROUNDS = 8

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
_LONGEST_FORMULA = 2000  # characters; a polynomial of that length takes about as long as the worker is given
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

    An amount becomes its exact value ("1/2", "1234"), a formula loses its spaces, code loses its
    layout, and words lose their case, outer punctuation and leading article. The form of a form is
    itself.
    """
    form = answer
    for _ in range(_MOST_ROUNDS):
        before, form = form, _form(form)
        if form == before:
            break
    return form


def _form(answer: str) -> str:
    text = _respell(answer)
    if (value := _amount(text)) is not None:
        return str(value)
    if is_formula(text):
        return _SPACE.sub("", _COMMA.sub(",", text))
    if (code := normal_code(unfenced(answer) or answer)) is not None:
        return code
    return _ARTICLE.sub("", _COMMA.sub(",", text.casefold()).strip(_PUNCTUATION))


class AnswerClasses:
    """Sorts answers into classes of equal ones as they come; classes are numbered from 0 by first appearance.

    An answer joins the first class whose first member it equals: equality of formulas is not
    transitive ("x = 5" equals 5, and 5 equals "y = 5"). A formula that is longer than any reader's,
    or that cannot be compared within `timeout_s`, equals only its own spellings. There is at most one
    timed request to the worker for each distinct answer, and none while all answers are plain
    numbers, words or code. Tasks of one event loop may share an instance.
    """

    def __init__(self, *, timeout_s: float = 2.0) -> None:
        self._timeout_s = timeout_s
        self._turn = anyio.Lock()
        self._class_of: dict[str, int] = {}
        self._count = 0
        self._firsts: list[_First] = []
        self._lone_formula: _First | None = None
        self._has_worker = True

    async def add(self, answer: str | None) -> int | None:
        """The class of `answer`; None stays None."""
        if answer is None:
            return None
        key = normalize(answer)
        async with self._turn:
            if key not in self._class_of:
                self._class_of[key] = await self._place(key, _latex(key))
                self._count = max(self._count, self._class_of[key] + 1)
            return self._class_of[key]

    async def _place(self, key: str, latex: str | None) -> int:
        """The class of a normal form that was not seen before."""
        if latex is None:
            return self._count
        new = _First(latex, is_number=_amount(key) is not None, index=self._count)
        if self._lone_formula is not None:
            await self._admit(self._lone_formula)
            self._lone_formula = None
        elif not self._firsts and not new.is_number:
            self._lone_formula = new  # it may stay alone, and then needs no worker
            return new.index
        return await self._admit(new)

    async def _admit(self, new: "_First") -> int:
        """The class of the first that equals `new`; without one, `new` is a first from now on."""
        rivals = [first for first in self._firsts if not (first.is_number and new.is_number)]
        try:
            found = await self._first_equal(new, rivals)
        except NoVerdict:
            return new.index  # not a first, where it would use up the time of all that follow
        if found is not None:
            return rivals[found].index
        self._firsts.append(new)
        return new.index

    async def _first_equal(self, new: "_First", rivals: list["_First"]) -> int | None:
        if new.is_number and not rivals:
            return None
        if not self._has_worker:
            raise NoVerdict(new.latex)
        ask = partial(_worker.first_equal, new.latex, [rival.latex for rival in rivals], self._timeout_s)
        try:
            return await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=_limiter())
        except NoWorker as error:
            self._has_worker = False
            warnings.warn(f"no worker, so formulas are compared as text: {error}", RuntimeWarning, stacklevel=2)
            raise NoVerdict(new.latex) from error


async def equivalence_classes(answers: Sequence[str | None], *, timeout_s: float = 2.0) -> list[int | None]:
    """The class of each answer, as `AnswerClasses` numbers them; None stays None."""
    classes = AnswerClasses(timeout_s=timeout_s)
    return [await classes.add(answer) for answer in answers]


@dataclass(frozen=True, slots=True)
class _First:
    """The first member of the class `index`: what later answers are compared with."""

    latex: str
    is_number: bool
    index: int


def _respell(answer: str) -> str:
    text = tidy(answer).translate(_SYMBOLS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return tidy(text)


def _amount(text: str) -> Fraction | None:
    """The value of a text that is one number, with or without currency, scale and unit."""
    text = _FRACTION.sub(lambda ratio: f" {ratio[1] or ratio[3]}/{ratio[2] or ratio[4]} ", text)
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


def _latex(form: str) -> str | None:
    """What Math-Verify is given for a normal form; None if it is words, code or too long."""
    if _amount(form) is not None:
        return form
    if len(form) > _LONGEST_FORMULA or not is_formula(form):
        return None
    text = form
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _waiting.get()
    except LookupError:
        _waiting.set(limiter := anyio.CapacityLimiter(1))
        return limiter
