"""Find the code in a text, and give the form in which two spellings of the same code are the same string."""

import ast
import re
import threading
import warnings
from bisect import bisect
from dataclasses import dataclass
from functools import lru_cache
from textwrap import dedent

# A fence begins its line or an item of a list, or it follows the colon that announces it.
_FENCE = re.compile(
    r"(?:^[ \t]*+(?:[-+*]|\d{1,3}[.)])?|:)[*_ \t]*+(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<language>[^\s`]*+)[^`\n]*+$",
    re.MULTILINE,
)
_NO_LANGUAGE = frozenset(
    {"", "text", "txt", "plaintext", "plain", "markdown", "md", "latex", "tex", "math", "json", "yaml"}
    | {"answer", "output", "result"}
)

# Parsing 50,000 characters takes 0.2 s at most, and Python's limits on nesting keep its parser within 1 MB
# of stack, of which a thread has 8. But they depend on how deep the caller stands, and this one does not.
_LONGEST = 50_000
_DEEPEST = 100
_MAY_BE_PYTHON = re.compile(r"\n|;|\b(?:def|class|lambda|for|while|if|with|try|match)\b")
_BLOCKS = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension, ast.Match),
    *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar),
)
# Of languages with braces or semicolons; the layout below keeps the sign.
_CODE_SIGN = re.compile(r"[;{]\s*\n|;\s*\}")
_parsing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences of Markdown: source[start:end], the fences included.

    A block that is not `closed` runs to the end of the text.
    """

    source: str
    start: int
    end: int
    inside: slice
    language: str
    closed: bool

    @property
    def content(self) -> str:
        """What it holds, as far to the left as it may stand."""
        return dedent(self.source[self.inside]).strip("\n").rstrip()

    @property
    def has_code_language(self) -> bool:
        """Whether its fence names a programming language."""
        return self.language not in _NO_LANGUAGE

    @property
    def is_code(self) -> bool:
        """Whether its fence or its content says that this is code."""
        content = self.content
        return bool(content) and (self.has_code_language or normal_code(content) is not None)


@lru_cache(maxsize=4)  # whoever looks for an answer asks again and again
def blocks(text: str) -> tuple[Block, ...]:
    """The fenced blocks of `text`, in their order."""
    found: list[Block] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence["marks"].startswith(opening["marks"]) and not fence["language"]:
            found.append(_block(opening, fence))
            opening = None
    if opening is not None:
        found.append(_block(opening, None))
    return tuple(found)


def block_at(text: str, position: int) -> Block | None:
    """The block of `text` within which `position` is."""
    found = blocks(text)
    index = bisect(found, position, key=lambda block: block.start) - 1
    return found[index] if index >= 0 and position < found[index].end else None


def unfenced(text: str) -> str | None:
    """The content of a text that is nothing but one closed block; None of any other text."""
    text = text.strip()
    found = blocks(text) if text.startswith(("```", "~~~")) else ()
    return found[0].content if len(found) == 1 and found[0].closed and found[0].end == len(text) else None


def normal_code(text: str) -> str | None:
    """`text` without comments, docstrings and layout if it is code; None if it is prose, a formula or too long.

    Python is parsed and written anew from its syntax tree, so that quotes and parentheses do not matter
    either. Of other languages only the white space is normalised. One line counts as Python only if it holds
    a block, a lambda or a comprehension, because "import tariffs" and "Paris (France)" parse too.
    """
    if len(text) > _LONGEST:
        return None
    if (python := _python(text)) is not None:
        return python if len(python) <= _LONGEST else None
    text = text.strip()
    return _brace_layout(text) if _CODE_SIGN.search(text) else None


def _block(opening: re.Match[str], closing: re.Match[str] | None) -> Block:
    text = opening.string
    inside = slice(opening.end(), closing.start() if closing else len(text))
    end = closing.end() if closing else len(text)
    return Block(text, opening.start("marks"), end, inside, opening["language"].lower(), closing is not None)


def _python(text: str) -> str | None:
    tree = _parsed(text) if _MAY_BE_PYTHON.search(text) else None
    if tree is None or _is_deep(tree):
        return None
    _drop_strings(tree)
    if not _is_program(tree):
        return None
    try:
        return ast.unparse(tree)
    except (ValueError, RecursionError):  # an f-string with a backslash, or a caller that stands very deep
        return None


def _parsed(text: str) -> ast.Module | None:
    # The lock, because threads that restore the filters in another order leave them changed.
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes: they are the model's
        try:
            return ast.parse(dedent(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _is_deep(tree: ast.AST) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


def _drop_strings(tree: ast.Module) -> None:
    # All that stand as statements: a second one would be the docstring once the first is gone.
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list) and statements:
                kept = [statement for statement in statements if not _is_string(statement)]
                setattr(node, name, kept or [ast.Pass()])


def _is_string(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_program(tree: ast.Module) -> bool:
    signs = (*_BLOCKS, ast.Call, ast.Import, ast.ImportFrom) if len(tree.body) > 1 else _BLOCKS
    return any(isinstance(node, signs) for node in ast.walk(tree))


def _brace_layout(text: str) -> str:
    one_line = re.sub(r"(?<!\w) | (?!\w)", "", re.sub(r"\s+", " ", text))
    return re.sub(r"([;{}])", r"\1\n", one_line).strip()
