import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optillm_local.answers import AnswerClasses, equal, equivalence_classes, normalize
from optillm_local.answers._process import NoVerdict, NoWorker

pytestmark = pytest.mark.anyio


class FakeWorker:
    """Finds formulas equal that have the same first character; those with `!` have no verdict."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def first_equal(self, latex: str, rivals: Sequence[str], timeout_s: float) -> int | None:
        self.asked.append(latex)
        if any("!" in formula for formula in [latex, *rivals]):
            raise NoVerdict(latex)
        return next((index for index, rival in enumerate(rivals) if rival[0] == latex[0]), None)


class DeadWorker:
    def first_equal(self, latex: str, rivals: Sequence[str], timeout_s: float) -> int | None:
        raise NoWorker("it is dead")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    worker = FakeWorker()
    monkeypatch.setattr(equal, "_worker", worker)
    return worker


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal, "_worker", DeadWorker())


@pytest.mark.parametrize(
    ("form", "spellings"),
    [
        (
            "15",
            [
                "15",
                "15.0",
                "15.",
                " $15 ",
                r"\$15",
                "15 apples",
                "15 dollars",
                "15\\,\\text{cm}",
                "15kg",
                "+15",
            ],
        ),
        (
            "1/2",
            ["0.5", ".5", "1/2", "2/4", r"\frac{1}{2}", r"\dfrac12", r"$\tfrac{2}{4}$", "0.5 m/s^2", "5e-1"],
        ),
        ("-3/2", ["-1.5", "\u22121.5", "-1 1/2", r"-1\frac{1}{2}", "-$1.50", "$-1.50"]),
        ("2469/2", ["1,234.50", "1{,}234.5", "$1,234.50"]),
        ("5000000", ["5 million", "$5 million dollars", "5,000,000", "5e6"]),
        ("50", ["50%", r"50\%", "50 percent", "50.0 %"]),
        ("30", ["30", r"30^\circ", "30\u00b0C", "30 degrees"]),
        ("(1,2)", ["(1, 2)", r"\left( 1,2 \right)"]),
        ("x^2+1", ["x^2 + 1", "x\u00b2+1", "$x^2+1$"]),
        ("eiffel tower", ["The Eiffel Tower.", "**eiffel  tower**", '"Eiffel Tower!"']),
        ("b", ["B", "(B)", "b", r"\text{B}", "B. Paris", "option B"]),
        ("a,c", ["A, C", "a,c"]),
    ],
)
def test_spellings_of_one_answer(form: str, spellings: list[str]) -> None:
    assert {normalize(spelling) for spelling in spellings} == {form}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("50%", "0.5"),
        ("1/3", "0.333333"),
        ("5", "5 million"),
        ("5", "5 dozen"),
        ("5 am", "5 pm"),
        ("12", "1 2"),
        ("5!", "5"),
        ("5", "5m"),
        ("1,2", "12"),
        ("1/0", "1"),
        ("1 9/5", "14/5"),
        ("x = 5", "y = 5"),
        (r"\Delta", r"\delta"),
        ("9" * 5000, "9" * 5001),
    ],
)
def test_different_normal_forms(left: str, right: str) -> None:
    assert normalize(left) != normalize(right)


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.sampled_from(["{}", "{} apples", "${}$", "{}%", "**{}.**"]))
def test_a_number_becomes_its_value(value: Fraction, form: str) -> None:
    assert normalize(form.format(value)) == str(value)


@settings(max_examples=25, deadline=None)  # each starts an event loop
@given(st.lists(st.none() | st.sampled_from(["1", "1.0", "2", "two", "Two", "", "5 am", r"\frac{4}{2}"])))
def test_classes_are_numbered_by_first_appearance(answers: list[str | None]) -> None:
    classes = anyio.run(equivalence_classes, answers)
    assert [c is None for c in classes] == [a is None for a in answers]
    seen = [c for c in classes if c is not None]
    assert list(dict.fromkeys(seen)) == list(range(len(set(seen))))


@pytest.mark.usefixtures("no_worker")  # so that asking for a worker warns
@pytest.mark.filterwarnings("error")
async def test_numbers_and_words_need_no_worker() -> None:
    answers = ["15", "$15", None, "16", "fifteen", "15.0", "chapter 5", "page 5", "50%", r"\frac{32}{2}"]
    assert await equivalence_classes(answers) == [0, 0, None, 1, 2, 0, 3, 4, 5, 1]
    assert await equivalence_classes([r"\sqrt{4}", "two"]) == [0, 1]
    assert await equivalence_classes([]) == []


@pytest.mark.usefixtures("no_worker")
async def test_without_a_worker_spelling_decides() -> None:
    with pytest.warns(RuntimeWarning, match="compared as text: it is dead") as caught:
        assert await equivalence_classes([r"\sqrt{4}", "2", r"$\sqrt{4}$", "x^2", "4/2"]) == [0, 1, 0, 2, 1]
    assert len(caught) == 1


async def test_each_answer_is_compared_once(fake: FakeWorker) -> None:
    classes = AnswerClasses()
    answers = ["1", "x + 1", "1.0", "Paris", "x + 2", "x+1", None, "y + 1", "paris", "y + 1", "2"]
    assert [await classes.add(answer) for answer in answers] == [0, 1, 0, 2, 1, 1, None, 3, 2, 3, 4]
    assert fake.asked == ["x+1", "x+2", "y+1", "2"]


async def test_a_formula_without_a_verdict_is_nobodys_rival(fake: FakeWorker) -> None:
    classes = AnswerClasses()
    assert [await classes.add(answer) for answer in ["x!", "word", "1", "x!", "y!", "2"]] == [0, 1, 2, 0, 3, 4]
    assert fake.asked == ["x!", "y!"]  # the first as soon as something is there to compare it with
    assert [await classes.add(answer) for answer in ["x + 1", "x + 2"]] == [5, 5]


async def test_tasks_may_share_the_classes(fake: FakeWorker) -> None:
    classes, found = AnswerClasses(), []

    async def add(answer: str) -> None:
        found.append((answer[0], await classes.add(answer)))

    async with anyio.create_task_group() as tasks:
        for answer in ["x + 1", "y + 1", "x + 2", "y + 1", "x + 1"]:
            tasks.start_soon(add, answer)
    assert len(found) == 5
    assert len(set(found)) == 2
    assert len(fake.asked) == len(set(fake.asked)) <= 3


async def test_a_cancelled_answer_may_be_added_again() -> None:
    classes = AnswerClasses(timeout_s=20.0)
    assert await classes.add("1") == 0
    with anyio.move_on_after(0.01):
        await classes.add(r"\sqrt{4}")
    assert [await classes.add(answer) for answer in ["2", r"\sqrt{4}", r"\sqrt{1}"]] == [1, 1, 0]


async def test_formulas_are_compared_in_a_worker_that_may_be_killed() -> None:
    endless = "9^{9^{9^9}}"
    answers = [r"\sqrt{4}", endless, "2", "x = 2", None, "x^2 - 1", "9**9", "9", "(x-1)(x+1)", endless, "two"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_assert_classes, answers, [0, 1, 0, 0, None, 2, 3, 4, 2, 1, 5])
        tasks.start_soon(
            _assert_classes, ["7", "pi/2", r"\frac{\pi}{2}", "2, 3", "{3, 2}", "NO2"], [0, 1, 1, 2, 2, 3]
        )


async def _assert_classes(answers: Sequence[str | None], classes: Sequence[int | None]) -> None:
    assert await equivalence_classes(answers, timeout_s=1.0) == classes


def test_importing_is_light() -> None:
    code = "import optillm_local.answers, sys; sys.exit('sympy' in sys.modules or 'math_verify' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
