"""The token-efficiency benchmark, run as its users run it, on a scripted model."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS, RECORDS = "token_efficiency_questions.jsonl", "token_efficiency.jsonl"


def run(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "token_efficiency.py"), "--client", "scripted", "--quick"]
    return subprocess.run([*command, "--out", str(out), *flags], capture_output=True, text=True, timeout=60)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("results")
    done = run(out, "--optimizers", "self_consistency:n=9")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_every_question_is_a_row_with_its_key_and_its_cost(finished: tuple[Path, str]) -> None:
    rows = read(finished[0] / ROWS)
    assert len(rows) == 2 * 4 * 2  # optimizers, tasks, questions
    assert {row["key"]["optimizer"] for row in rows} == {"single", "self_consistency:n=9"}
    assert all(0 <= row["discarded"] < row["generated"] and row["computed"] > 0 < row["steps"] for row in rows)
    assert {row["key"]["options"].get("n") for row in rows} == {None, 9}


def test_the_record_compares_with_the_baseline_and_has_intervals(finished: tuple[Path, str]) -> None:
    [record] = read(finished[0] / RECORDS)
    baseline, voted = record["optimizers"]["single"], record["optimizers"]["self_consistency:n=9"]
    assert (baseline["gain"], baseline["gain_interval"], baseline["discarded"]) == (0, [0, 0], 0)
    assert voted["gain"] == pytest.approx(voted["accuracy"] - baseline["accuracy"])
    for one in (baseline, voted):
        for name in ("accuracy", "generated", "gain"):
            low, high = one[f"{name}_interval"]
            assert low <= one[name] + 0.05 and one[name] - 0.05 <= high
    assert voted["generated"] > baseline["generated"]
    assert set(voted["accuracy_by_task"]) == set(record["tasks"])


def test_the_table_the_bar_and_the_plot_are_there(finished: tuple[Path, str]) -> None:
    out, said = finished
    assert "16/16" in said and "self_consistency:n=9" in said and "over single" in said
    assert (out / "token_efficiency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flag", [[], ["--resume"]])
def test_a_run_that_was_cut_off_goes_on_only_if_told_to(
    finished: tuple[Path, str], tmp_path: Path, flag: list[str]
) -> None:
    before = (finished[0] / ROWS).read_text().splitlines(keepends=True)
    (tmp_path / ROWS).write_text("".join(before[:5]) + before[5][:40])  # five rows and a torn one
    assert run(tmp_path, "--optimizers", "self_consistency:n=9", *flag).returncode == 0
    after = (tmp_path / ROWS).read_text().splitlines(keepends=True)
    asked_now = after[6:]
    assert len(asked_now) == (11 if flag else 16)
    assert [json.loads(line)["right"] for line in asked_now] == [
        json.loads(line)["right"] for line in before[-len(asked_now) :]
    ]


def test_questions_side_by_side_share_the_steps(tmp_path: Path, finished: tuple[Path, str]) -> None:
    assert run(tmp_path, "--optimizers", "single", "--at-once", "8").returncode == 0
    alone, together = (read(out / RECORDS)[0]["optimizers"]["single"] for out in (finished[0], tmp_path))
    same = ("accuracy", "generated", "computed")
    assert [alone[name] for name in same] == [together[name] for name in same]
    assert together["steps"] < alone["steps"] / 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optimizers", "singel"], "Did you mean 'single'"),
        (["--optimizers", "self_consistency:n=0"], "self_consistency option n"),
        (["--optimizers", "self_consistency:n"], "name:option=value"),
        (["--at-once", "0"], "no whole number of at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_question(tmp_path: Path, flags: list[str], message: str) -> None:
    done = run(tmp_path, *flags)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_intervals_are_those_of_the_textbook() -> None:
    intervals = runpy.run_path(str(BENCHMARKS / "intervals.py"))
    assert intervals["wilson"](8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert intervals["wilson"](0, 10) == pytest.approx((0.0, 0.278), abs=1e-3)
    assert intervals["of_mean"]([2.0] * 9, seed=0) == (2.0, 2.0)
    low, high = intervals["of_mean"]([0.0, 1.0] * 50, seed=0)
    assert (low, high) == pytest.approx((0.40, 0.60), abs=0.02)
    assert intervals["of_ratio"]([1.0, 3.0], [2.0, 6.0], seed=0) == (0.5, 0.5)


def test_only_what_is_better_than_all_cheaper_ones_is_on_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    pareto = runpy.run_path(str(BENCHMARKS / "pareto.py"))
    known = {"a": (10, 0.3), "b": (20, 0.5), "c": (20, 0.4), "d": (30, 0.5), "e": (40, 0.9), "f": (5, 0.3)}
    points = [pareto["Point"](name, x, (x, x), y, (y, y)) for name, (x, y) in known.items()]
    assert [point.label for point in pareto["front"](points)] == ["f", "b", "e"]
