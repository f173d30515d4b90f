import pytest
from hypothesis import given
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
    weaker = ["99 in all", "Answer: 1", "#### 2", "<answer>3</answer>", r"\boxed{4}"]
    found = [extract_answer("\n".join(reversed(weaker[: n + 1]))) for n in range(len(weaker))]
    assert found == ["99", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 5_000,
        r"\boxed{" * 2_000 + "}" * 2_000,
        r"\(" * 10_000 + "5",
        "answer to " * 5_000,
        "$" * 20_000,
        "(B) " * 10_000,
        "1," * 10_000,
    ],
    ids=lambda text: text[:8],
)
def test_a_looping_model_costs_no_time(text: str) -> None:
    extract_answer(text)


@pytest.mark.parametrize("form", ["Answer: {}", "The answer is {}.", r"\boxed{{{}}}", "<answer>{}</answer>", "{}"])
@given(plain=PLAIN)
def test_a_stated_answer_is_found(form: str, plain: str) -> None:
    assert extract_answer(form.format(plain)) == plain


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
    ],
)
def test_of_a_text_that_was_cut_off_only_a_marked_answer_counts(text: str, answer: str | None) -> None:
    assert extract_answer(text, deliberate=True) == answer
