import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optillm_local.answers import normalize
from optillm_local.answers.code import block_at, blocks, normal_code, unfenced

PLAIN = "def f(x):\n    return (x + 1) * 2"


@pytest.mark.parametrize(
    "spelling",
    [
        "def f( x ):\n\n  return ( x+1 )*2  # doubled\n",
        'def f(x):\n\t"""Doubled."""\n\t"Really."\n\treturn ((x + 1) * 2)',
        "    def f(x):\n        return (x + 1) * 2",
        "def f(x): return (x + 1) * 2",
        f"```python\n{PLAIN}\n```",
        f"~~~~\n{PLAIN}\n~~~~\n",
    ],
)
def test_spellings_of_one_program(spelling: str) -> None:
    assert normalize(spelling) == normalize(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (PLAIN, PLAIN.replace("+", "-")),
        (PLAIN, PLAIN.replace("(x + 1)", "x + 1")),
        ("x = F(1)\ny = x", "x = f(1)\ny = x"),
        ("for x in y:\n    f(x)\ng()", "for x in y:\n    f(x)\n    g()"),
        ("lambda x: 'a  b'", "lambda x: 'a b'"),
        ("if (x) {\n  y();\n}", "if (x) {\n  z();\n}"),
        ("intx;\ny;", "int x;\ny;"),
    ],
)
def test_different_programs(left: str, right: str) -> None:
    assert normal_code(left)
    assert normalize(left) != normalize(right)


def test_of_other_languages_white_space_does_not_matter() -> None:
    spellings = [
        "int f(int x) {\n  return x + 1;\n}",
        "int f(int x)\n{\n\treturn x+1; }",
        "int f(int x){return x+1;}",
    ]
    assert {normalize(spelling) for spelling in spellings} == {"int f(int x){\nreturn x+1;\n}"}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Paris",
            "Paris\nLondon",
            "import tariffs",
            "Paris (France)",
            "Paris: yes\nRome: no",
            "not sure",
            "f(x)",
        ),
        *("a; b", "total = 3 * 4\nanswer = 12", "if it rains", "x if y else z", "def f(:\n    1"),
        *("x = '\0'\nf(x)", "f('\ud800')\nx"),
    ],
)
def test_not_code(text: str) -> None:
    assert normal_code(text) is None


def test_a_model_may_write_what_python_warns_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert normal_code("x = f('\\d')\ny = 1if x else 2") == "x = f('\\\\d')\ny = 1 if x else 2"
    assert not caught


def test_blocks() -> None:
    text = "a ```b``` c\n```Python title\nx = 1\n\n```\n- d:\n  ~~~\n  ```\n    w\n  ~~~\nCode: ```\nz"
    found = blocks(text)
    assert [(block.language, block.content, block.closed) for block in found] == [
        ("python", "x = 1", True),
        ("", "```\n  w", True),
        ("", "z", False),
    ]
    assert text[found[0].start : found[0].end] == "```Python title\nx = 1\n\n```"
    assert [block_at(text, text.index(word)) for word in "axdwz"] == [None, found[0], None, found[1], found[2]]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (" ```\nx\n``` ", "x"),
        ("```\nx", None),
        ("```\nx\n```\ny", None),
        ("y\n```\nx\n```", None),
        ("```x```", None),
    ],
)
def test_unfenced(text: str, content: str | None) -> None:
    assert unfenced(text) == content


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*"xy1+-*=()[]{}:;,.'\"# \n\t", "\n    ", "def f", "if ", "lambda ", "return "])).map(
        "".join
    )
)
def test_the_normal_form_of_code_is_its_own(text: str) -> None:
    form = normal_code(text)
    assert form is None or normal_code(form) == form


# Python's parser and its syntax tree are C: what overflows their stack ends the process, not the test.
NESTED = [
    "(",
    "[",
    "-",
    "not ",
    "x.",
    "x[",
    "x(",
    "1+",
    "1**",
    "lambda:",
    "1 if 1 else ",
    "f'{",
    "else:\n",
    "if x:\n pass\nel",
]


@pytest.mark.timeout(60)
def test_nested_code_does_not_end_the_process() -> None:
    code = f"""
import threading
from optillm_local.answers.code import normal_code
def parse():
    for piece in {NESTED!r}:
        for count in (90, 150, 1000, 49_000 // len(piece)):
            normal_code("x\\n" + piece * count + "1" + {{"(": ")", "[": "]"}}.get(piece, "") * count)
threading.stack_size(1 << 20)  # an eighth of what threads have
thread = threading.Thread(target=parse)
thread.start()
thread.join()
print("parsed")
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.stdout, done.stderr, done.returncode) == ("parsed\n", "", 0)


def test_code_that_is_long_or_deep_is_compared_as_text() -> None:
    deep = "f()\nx = " + "-" * 120 + "1"
    long = "x = f(1)\n" * 6_000
    assert normal_code(deep) is normal_code(long) is None
    assert normalize(deep) != normalize(deep + "0")
