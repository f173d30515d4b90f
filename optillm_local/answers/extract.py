r"""Find the final answer that a model's text states.

The ways of stating one are tried from the most to the least deliberate, because a model that was
asked for a box also writes numbers, and a number is only a guess at what it meant:

1. ``\boxed{x}`` or ``\fbox{x}`` (the convention of MATH, Hendrycks et al. 2021),
2. ``<answer>x</answer>`` (DeepSeek-R1's template, 2025),
3. ``#### x`` (GSM8K, Cobbe et al. 2021),
4. ``{"final_answer": x}`` or else ``{"answer": x}``, a field of JSON,
5. "Final answer: x", "Answer: x", "The answer is x", "The correct option is B",
6. ``{"result": x}``, which may also be that of a step,
7. a last line that is nothing but a formula, a date, a time or a choice letter,
8. the last number,
9. the last block of code, or a text that is nothing but code,
10. a text that is nothing but one short line.

Code is one answer, and what it holds states none: not the numbers, and not the
``print("Answer:", x)``. So 7 and 8 look only at what follows the last block of code, and 4 to 6
pass over blocks whose fence names a programming language.

Within one way the last statement wins: models correct themselves forwards ("The answer is 3.
Wait, no: the answer is 4."). What comes back is the model's own wording without its packaging
(delimiters, emphasis, fences, a closing full stop); units, currency and separators stay, since
`optillm_local.answers.equal` is the module that judges them.
"""

import re
from collections.abc import Iterable, Iterator

from optillm_local.answers.code import block_at, blocks, normal_code, unfenced
from optillm_local.answers.fields import fields

SHORT = 60
"""Characters up to which one line is taken for an answer rather than for a sentence."""

_DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
)
# Bounded, because a model stuck in a loop may nest thousands.
_MOST_WRAPPINGS = 8
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|it|rm))\s*\{(.*)\}", re.DOTALL)
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<(?P<close>/?)answer>", re.IGNORECASE)
_HASHED = re.compile(r"^[ \t]*####(?!#)[ \t]*(\S.*)$", re.MULTILINE)

# After "answer": "to the question", "(in dollars)"; then a colon, a verb, or nothing else on a
# line of its own (a Markdown heading).
_MARKER = re.compile(
    # A choice needs its letter: "the best option is to wait" states none.
    r"\b(?:correct|right|best)\s+(?:option|choice)\s*(?:is\b|:)(?=[\s:*_($]{0,8}(?-i:[A-J])\b)|"
    r"\banswers?(?:\s+to\s[^.:\n]{1,80}?)?(?:\s*\([^)\n]{1,40}\))?"
    r"(?:[*_`]*\s*:|\s+(?:is|are|should\s+be|must\s+be)\b[*_`]*:?)"
    r"|^[#*_ \t]*(?:the\s+|my\s+)?(?:final\s+)?answer[*_ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# What may stand between the marker and the answer: emphasis or an opened display formula.
_PACKAGING = re.compile(r"(?:\s|\*\*|\$\$[ \t]*\n|\\\[[ \t]*\n)*")
# A full stop ends the sentence unless it follows an initial or a title; "5!" is a factorial.
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bMt)(?:[.?]|(?<!\d)!)[*_]*\s+(?=[A-Z(\"'*])"
    r"|,?\s+(?:because|since)\b|,\s+which\b"
)

_FRACTION = r"\\[dt]?frac\{-?\d+\}\{\d+\}"
_DECIMAL = r"(?>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d++)(?:\.\d++)?|\.\d++)(?:[eE][-+]?\d++)?+"
_DATE_OR_TIME = r"\d{4}-\d\d-\d\d\b|\d{1,2}:\d\d(?::\d\d)?\b"
# A minus after a word or a number is a hyphen or a subtraction; digits inside a word, a version or
# an exponent are not a number; neither is an ordinal.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])-)?(?<![\w.^])[$€£¥₹]?"
    rf"(?:{_FRACTION}|{_DATE_OR_TIME}|{_DECIMAL}(?:\s?/\s?\d++)?)(?:\s?\\?%)?(?!(?:st|nd|rd|th)\b)"
)
# Pandoc's rule for inline formulas: "$5 and $10" are prices.
_INLINE_FORMULA = re.compile(
    r"\$(?!\s)[^$\n]{1,200}?(?<!\s)\$(?!\d)|\\\(.{1,200}?\\\)|\\\[.{1,200}?\\\]", re.DOTALL
)

# "(B)", "B)", "(B) Paris", "B. Paris", "option B". Not "(A) and (C)", "J. K. Rowling" or "E. coli".
_CHOICE = re.compile(
    r"(?:(?i:option|choice)\s+)?(?:\(([A-J])\)|([A-J])\))(?:[.:]?\s(?!.*\b[A-J]\)).*)?"
    r"|([A-J])\.\s+(?![A-Z]\.)[^a-z].*"
    r"|(?i:option|choice)\s+([A-J])"
    r"|(?:(?i:option|choice)\s+)?\(([a-j])\)",
    re.DOTALL,
)
_CHOICE_LETTER = re.compile(r"[A-J]")

# Of a line below others; "2. 7" and "3) 7" are items of a list.
_FORMULA_START = re.compile(r"(?!\d+[.)]\s)[\w\\($\[]")
_FORMULA_SIGN = re.compile(r"[\d\\^=<>+*/|!]|\bpi\b")
_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}|(?<!\S)[^\W\d_]{2}(?!\S)")
_FORMULA_WORDS = frozenset({"and", "or", "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp"})
# A clock time, a ratio, a date, a version, a molecule: a parser of formulas would calculate with them.
_NOT_A_FORMULA = re.compile(r":|\d{1,4}([-/.])\d{1,2}\1\d|\d\.\d+\.|(?<![\\a-z])[A-Z][a-z]?\d")


def extract_answer(text: str, *, deliberate: bool = False) -> str | None:
    """The final answer stated in a model's `text`; None where it states none.

    A leading ``<think>`` block is not part of the statement; one that was never closed means that
    the model was cut off before it answered. See the module for the order of precedence.

    With `deliberate`, only what is marked as the answer counts (1 to 6): the last number of a text that was
    cut off is no answer, and neither is a block that was never closed.
    """
    visible = _after_thinking(text)
    for find in (_boxed, _tagged, _hashed, _answer_field, _phrased, _result_field):
        if answer := find(visible):
            return answer
    return None if deliberate else _unmarked(visible)


def tidy(text: str) -> str:
    r"""`text` without what merely wraps an answer.

    >>> tidy("**$\\text{(B)}$.**")
    'B'
    """
    code = unfenced(text)
    if code and "\n" in code:
        return code
    text = (code or text).replace("\u2212", "-")
    for _ in range(_MOST_WRAPPINGS):
        text = _unwrap(text)
    return _choice(text)


def is_formula(text: str) -> bool:
    """Whether `text` is mathematics through and through: signs or digits, and no words of prose."""
    return _is_wordless(text) and not _NOT_A_FORMULA.search(text)


def _is_wordless(text: str) -> bool:
    words = _WORD.findall(_COMMAND.sub(" ", text))
    return bool(_FORMULA_SIGN.search(text)) and all(word.lower() in _FORMULA_WORDS for word in words)


def _after_thinking(text: str) -> str:
    # Some chat templates open the block in the prompt, so the output holds only its end.
    thinking, closed, visible = text.partition("</think>")
    if thinking.lstrip().startswith("<think>"):
        return visible
    return visible if closed and "<think>" not in thinking else text


def _unwrap(text: str) -> str:
    text = text.strip().strip("*").rstrip(".,;:").strip()
    for opening, closing in _DELIMITERS:
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            inside = text[len(opening) : -len(closing)]
            if opening not in inside and closing not in inside:
                return inside
    wrapper = _WRAPPER.fullmatch(text)
    return wrapper[1] if wrapper and _is_balanced(wrapper[1]) else text


def _is_balanced(text: str) -> bool:
    depth = 0
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and token[0] != r"\{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
        if depth < 0:
            return False
    return depth == 0


def _choice(text: str) -> str:
    choice = _CHOICE.fullmatch(text)
    return next(letter for letter in choice.groups() if letter).upper() if choice else text


def _first_stated(candidates: Iterable[str]) -> str | None:
    return next(filter(None, map(tidy, candidates)), None)


def _boxed(text: str) -> str | None:
    return _first_stated(text[inside] for inside in reversed(list(_boxes(text))))


def _boxes(text: str) -> Iterator[slice]:
    # One pass with a stack, and no copies: a model stuck in a loop writes thousands of boxes, one in
    # the other or never closed.
    opened: list[int | None] = []
    for token in _BRACES.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened and (start := opened.pop()) is not None:
            yield slice(start, token.start())


def _tagged(text: str) -> str | None:
    insides = reversed(list(_tags(text)))
    return _first_stated(_answer_field(inside) or _phrased(inside) or inside for inside in insides)


def _tags(text: str) -> Iterator[str]:
    start: int | None = None
    for tag in _TAG.finditer(text):
        if not tag["close"]:
            start = tag.end()
        elif start is not None:
            yield text[start : tag.start()]
            start = None


def _hashed(text: str) -> str | None:
    # "####" also heads a Markdown section: count it if a lone number follows or if it ends the text.
    end = len(text.rstrip())
    lines = reversed(list(_HASHED.finditer(text)))
    return _first_stated(line[1] for line in lines if _NUMBER.fullmatch(tidy(line[1])) or line.end() >= end)


def _answer_field(text: str) -> str | None:
    return _field(text, "final_answer", "answer")


def _result_field(text: str) -> str | None:
    return _field(text, "result")


def _field(text: str, *keys: str) -> str | None:
    return _first_stated(value for value, start in fields(text, *keys) if not _is_in_code(text, start))


def _phrased(text: str) -> str | None:
    for marker in reversed(list(_MARKER.finditer(text))):
        if not _is_in_code(text, marker.start()) and (answer := _statement_at(text, marker.end())):
            return answer
    return None


def _is_in_code(text: str, position: int) -> bool:
    block = block_at(text, position)
    return block is not None and block.has_code_language


def _statement_at(text: str, position: int) -> str:
    packaging = _PACKAGING.match(text, position)
    start = packaging.end() if packaging else position
    block = block_at(text, start)
    if block and block.start >= position:
        # One that was never closed is an answer only if the text was not cut off: see `_unmarked`.
        return tidy(text[block.start : block.end]) if block.closed else ""
    line = text[start:].partition("\n")[0]
    answer = tidy(_SENTENCE_END.split(line, maxsplit=1)[0])
    # A long line below "Answer:" is the start of an explanation.
    return answer if "\n" not in text[position:start] or len(answer) <= SHORT else ""


def _unmarked(text: str) -> str | None:
    """What a text without any mark seems to end in."""
    code, rest = _last_code(text)
    return _bare_line(rest) or _last_number(rest) or code or _short_line(text) or None


def _last_code(text: str) -> tuple[str | None, str]:
    """The last block of code, and the text that follows it; the whole text where there is none."""
    found = blocks(text)
    for block in reversed(found):
        if block.is_code:
            return block.content if "\n" in block.content else tidy(block.content), text[block.end :]
    if not found and not is_formula(text) and normal_code(text) is not None:
        return text.strip(), ""
    return None, text


def _bare_line(text: str) -> str | None:
    before, _, last = text.strip().rpartition("\n")
    line = tidy(last)
    if _CHOICE_LETTER.fullmatch(line):
        return line
    # Where other lines come before it, it may also be an arrow, an item of a list or a row of a table.
    is_doubtful = bool(before) and ("|" in line or not _FORMULA_START.match(line))
    return _right_side(line) if _is_wordless(line) and not is_doubtful else None


def _last_number(text: str) -> str | None:
    numbers = list(_NUMBER.finditer(text.replace("\u2212", "-")))
    if not numbers:
        return None
    last = numbers[-1]
    for formula in _INLINE_FORMULA.finditer(text):
        # The 3 of "$2\sqrt{3}$" is a piece of the answer; the answer is the formula.
        if formula.start() <= last.start() and last.end() < formula.end():
            inside = tidy(formula[0])
            return _right_side(inside) if is_formula(inside) else last[0]
    return last[0]


def _right_side(formula: str) -> str:
    """The number that an equation ends in, as "x = 5"; any other formula whole."""
    right = formula.rpartition("=")[2].strip()
    return right if _NUMBER.fullmatch(right) else formula


def _short_line(text: str) -> str | None:
    line = text.strip()
    # "Answer:" and nothing after it states none.
    is_answer = len(line) <= SHORT and "\n" not in line and not _MARKER.search(line)
    return tidy(line) if is_answer else None
