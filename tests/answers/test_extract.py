import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optillm_local.answers import extract_answer
from optillm_local.answers.extract import is_formula, tidy

WORDS = st.lists(st.text("abcdelmnorstuvxyz", min_size=2, max_size=10), min_size=1, max_size=3).map(" ".join)
PLAIN = WORDS | st.integers().map(str) | st.floats(0, 1e9).map("{:,.2f}".format)


def cases(table: dict[str, str | None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("text", "answer"), list(table.items()))


@cases(
    {
        r"First \boxed{1}, finally \boxed{2}.": "2",
        r"\boxed{\frac{1}{\sqrt{2}}}": r"\frac{1}{\sqrt{2}}",
        r"\boxed{\{1, 2\}}": r"\{1, 2\}",
        r"\boxed{\boxed{5}}": "5",
        r"\boxed{7} and then it was cut \boxed{8": "7",
        r"\boxed{x \boxed{5}": "5",
        r"Put it into \boxed{}: 7": "7",
        r"\fbox{3}": "3",
        r"\boxed{\textbf{(B)}}": "B",
        r"\boxed{\text{a} + \text{b}}": r"\text{a} + \text{b}",
        r"\boxed{15\text{ apples}}": r"15\text{ apples}",
    }
)
def test_box(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        "<answer>3</answer> no, <answer>4</answer>": "4",
        "<answer>\n15 apples\n</answer>": "15 apples",
        "<answer>The answer is 5.</answer>": "5",
        "<ANSWER>x</ANSWER> <answer>was cut": "x",
        "</answer>Paris": "</answer>Paris",
        "16 - 3 = 13\n#### 13\n\nQuestion: 99?": "13",
        "so\n#### $1,234.50": "$1,234.50",
        "so\n#### nine eggs\n": "nine eggs",
        "#### Step 1: add\n2 + 3 gives 5 in the end": "5",
        "#### Final Answer\n42": "42",
    }
)
def test_tag_and_hashes(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        "The answer is 3. Wait, no: the answer is 4.": "4",
        "Answer: 1,234.50": "1,234.50",
        "Answer:\n42": "42",
        "**Final Answer:** $\\frac{1}{2}$.": r"\frac{1}{2}",
        "**Answer**: `x = 5`": "x = 5",
        "**Final Answer**\n\n**42**": "42",
        "The final answer is:\n\\[\n42\n\\]": "42",
        "Final Answer: The final answer is $5$. I hope it is correct.": "5",
        "the answer to 3 + 4 is 7, which is prime": "7",
        "The answer is 4 because 2 + 2 = 4.": "4",
        "The answer (in dollars) is: $15": "$15",
        "Answer: \u201cthe Nile\u201d": "the Nile",
        "Answer: Dr. Smith": "Dr. Smith",
        "Answer: U.S. Congress": "U.S. Congress",
        "Answer: 5!": "5!",
        "Answer: \u221212": "-12",
        "Answer: 4\n\nI hope this answer is useful; the answer:": "useful; the answer",
        "Answer:\nLet us think about this one step at a time, slowly and with great care.\nIt is 7.": "7",
    }
)
def test_phrase(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        '{"answer": 5}': "5",
        'So {"reason": "x = 3", "answer": "15 km"} it is.': "15 km",
        '```json\n{"final_answer": -1.50, "answer": 2, "steps": [{"result": 3}]}\n```': "-1.50",
        '{"finalAnswer": true}': "true",
        '{"answer": 1} no: {"answer": 2}': "2",
        'Answer: {"answer": 5}': "5",
        '<answer>{"answer": "(B)"}</answer>': "B",
        '{"answer": [[1, 2], [3, 4]]}': "[[1, 2], [3, 4]]",
        r'{"answer": "\frac{1}{2} \text{ of } \sqrt{2}"}': r"\frac{1}{2} \text{ of } \sqrt{2}",
        r'{"answer": "\\frac{1}{2}"}': r"\frac{1}{2}",
        r'{"answer": "say \"hi\" \u00e9"}': 'say "hi" \u00e9',
        r'{"answer": "x = f(1)\nprint(x)"}': "x = f(1)\nprint(x)",
        '{"answer": 12, "final_answer": 1': "12",
        '{"answer": "was cut 7': "7",
        '{"answer": {"value": 3}}': "3",
        '{"answer": null, "result": "4"}': "4",
        'We add: {"result": 3}. The answer is 4.': "4",
    }
)
def test_field_of_json(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


F = "def f(x):\n    return x + 1"
JS = "function f(x) {\n  return x + 1;\n}"


@cases(
    {
        f"Here it is:\n```python\n{F}\n```": F,
        f"It is 3:\n```python\n{F}\n```\nIt adds one.\n": F,
        f"```python\nx = 1\n```\nBetter:\n\n~~~\n{F}\n~~~": F,
        f"1. First\n   ```py\n   {F.replace(chr(10), chr(10) + ' ' * 3)}\n   ```": F,
        f"Here it is:\n```python\n{F}": F,
        "- ```py\n  f(x)\n  ```": "f(x)",
        f"```\n{JS}\n```": JS,
        "```bash\nls -l\n```": "ls -l",
        F: F,
        "lambda x: x + 1": "lambda x: x + 1",
        f"Answer:\n```python\n{F}\n```\nIt is tested with 5.": F,
        f"**Answer:** ```python\n{F}\n```\nIt is tested with 5.": F,
        f"<answer>\n```python\n{F}\n```\n</answer>": F,
        "```python\nprint('Answer:', 6 * 7)\n```": "print('Answer:', 6 * 7)",
        '```python\nreturn {"answer": 42}\n```': 'return {"answer": 42}',
        "```python\nprint(6 * 7)\n```\nThis prints 42.": "42",
        f"```python\n{F}\n```\nThe answer is 7.": "7",
        f"\\boxed{{7}}\n```python\n{F}\n```": "7",
        "Answer:\n```\n42\n```": "42",
        "```\nThe total is 42\n```": "42",
        "total = 3 * 4\ntotal = 12": "12",
        "It is ```x = 5```": "5",
        "```python\n```": None,
    }
)
def test_code(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        "He has 15 apples": "15",
        "That makes $1,234.50 in total.": "$1,234.50",
        "So about 3/4 of them.": "3/4",
        r"So the probability is \frac{3}{4}.": r"\frac{3}{4}",
        "It went down by -2.5 %": "-2.5 %",
        "We went from 10-5": "5",
        "$5+$10=$15": "$15",
        "He pays $5 + $10 = $15 that day": "$15",
        r"So the area is $12\pi$.": r"12\pi",
        "We get $x = 2$.": "2",
        r"Thus \( \sqrt{2} \) it is.": r"\sqrt{2}",
        "The 22nd of 3 things": "3",
        "We meet at 12:30.": "12:30",
        "Of 1,2,3 the last": "3",
        "4 eggs.\n- 5 hens": "5",
        "We get 3 of them:\nx^2 + 3y": "x^2 + 3y",
        "We get 3 of them:\nx = 5": "5",
        "It is\n- 7": "7",
        "It is\n=> 7": "7",
        "It is\n2. 7": "7",
        "It is\n| 3 | 7 |": "7",
    }
)
def test_last_number(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        "Paris.": "Paris",
        "B.": "B",
        "(b)": "B",
        "2x + 3": "2x + 3",
        "x = 5": "5",
        "y = 2x + 1": "y = 2x + 1",
        "2023-05-01": "2023-05-01",
        r"\frac{3}{2}": r"\frac{3}{2}",
        "x" * 61: None,
        "one line\nand another": None,
        "": None,
        " \n": None,
        "Answer:": None,
        "The answer is": None,
    }
)
def test_bare_text(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        "The answer is (B) Paris": "B",
        "The answer is B. Because it rains": "B",
        "Answer: C) 42": "C",
        "Answer: option D": "D",
        "Answer: (A) and (C)": "(A) and (C)",
        "Answer: J. K. Rowling": "J. K. Rowling",
        "Answer: E. coli": "E. coli",
        "The answer is option (b).": "B",
        "The correct option is (C) because 3 > 2.": "C",
        "So the best choice: **D**": "D",
        "The best option is to wait 3 days": "3",
        "There are 3 of them.\n\n**B**": "B",
    }
)
def test_choice(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@cases(
    {
        r"<think>\boxed{3}</think> \boxed{4}": "4",
        r"<think>\boxed{3}</think>": None,
        r"<think>\boxed{3} and it was cut": None,
        r"\boxed{3} so far</think>Answer: 4": "4",
        "Answer: use <think>": "use <think>",
    }
)
def test_thinking_states_nothing(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_kinds_have_precedence() -> None:
    weaker = [
        "```py\n8\n```",
        "99 in all",
        "Answer: 1",
        '{"answer": 5}',
        "#### 2",
        "<answer>3</answer>",
        r"\boxed{4}",
    ]
    found = [extract_answer("\n".join(reversed(weaker[: n + 1]))) for n in range(len(weaker))]
    assert found == ["8", "8", "1", "5", "2", "3", "4"]
    assert extract_answer("\n".join(weaker[:2])) == "99"


@pytest.mark.parametrize("form", ["Answer: {}", "The answer is {}.", r"\boxed{{{}}}", "<answer>{}</answer>", "{}"])
@settings(deadline=None)
@given(plain=PLAIN)
def test_a_stated_answer_is_found(form: str, plain: str) -> None:
    assert extract_answer(form.format(plain)) == plain


@settings(deadline=None)
@given(st.text(alphabet='ab1.$*`"\\(){}[] ', max_size=12))
def test_tidy_only_takes_away(text: str) -> None:
    assert tidy(text).casefold() in text.casefold()
    assert len(tidy(tidy(text))) <= len(tidy(text))


@pytest.mark.parametrize(
    "text", ["x^2+1", r"\sqrt{2}", "2 or 3", "pi/2", "5 < x", r"\begin{pmatrix}1\end{pmatrix}"]
)
def test_formula(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize("text", ["Paris", "B", "chapter 5", "5 am", "12:30", "2023-05-01", "3.11.2", "CO2", ""])
def test_not_a_formula(text: str) -> None:
    assert not is_formula(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 3 is 6 and 6 + 3 is", None),
        ("x = 5", None),
        ("Paris", None),
        ("So the answer is 12. Let me check: 3 + 3", "12"),
        (r"\boxed{12} and then 3", "12"),
        ('{"answer": "12", "why": "3', "12"),
        ('{"answer": 12', None),
        ("Answer:\n```\n12\n```\nLet me check: 3 + 3", "12"),
        ("Answer:\n```python\ndef f(x):", None),
        ("```python\nx = f(1)\n```", None),
    ],
)
def test_of_a_text_that_was_cut_off_only_a_marked_answer_counts(text: str, answer: str | None) -> None:
    assert extract_answer(text, deliberate=True) == answer
