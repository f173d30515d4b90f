"""The kernels' benchmark, run as its users run it, on a CPU with the references."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "kernels" / "run.py"


def run(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--device", "cpu", "--out", str(out), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("results")
    done = run(out, "--quick")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def record(finished: tuple[Path, str]) -> dict[str, Any]:
    [line] = (finished[0] / "kernels.jsonl").read_text().splitlines()
    return dict(json.loads(line))


def test_every_part_runs_to_its_end(record: dict[str, Any]) -> None:
    assert set(record["ended"].values()) == {"complete"}
    assert {row["operation"] for row in record["rows"]} == {*record["ended"], "ceilings"}


def test_ours_is_right_and_timed_at_every_shape(record: dict[str, Any]) -> None:
    ours = [row for row in record["rows"] if row["contender"].startswith("ours")]
    assert len({row["operation"] for row in ours}) == 4
    assert [row for row in ours if row["problem"]] == []
    assert all(row["timing"]["median"] > 0 for row in ours if row["operation"] != "checks")


def test_what_the_machine_lacks_is_named_with_the_reason(record: dict[str, Any]) -> None:
    absent = {row["contender"]: row["problem"] for row in record["rows"] if row["timing"] is None}
    for name in ("FlashInfer cascade", "Liger", "cut-cross-entropy", "FlashAttention paged (stock)"):
        assert absent[name]


def test_a_cpu_says_nothing_about_a_bar_or_a_floor(finished: tuple[Path, str], record: dict[str, Any]) -> None:
    assert [bar["verdict"] for bar in record["bars"]] == ["not measured"] * 5
    assert all(row["share"] is None for row in record["rows"])
    assert finished[1].count("not measured") == 5


def test_the_plot_and_a_line_per_row_are_written(finished: tuple[Path, str], record: dict[str, Any]) -> None:
    assert (finished[0] / "kernels.png").stat().st_size > 0
    assert len((finished[0] / "kernels_rows.jsonl").read_text().splitlines()) == len(record["rows"])


def test_a_bar_is_met_or_missed_by_its_worst_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROGRAM.parent)
    report = runpy.run_path(str(PROGRAM.parent / "report.py"))

    def row(operation: str, contender: str, us: float, **facts: Any) -> Any:
        timing = {"median": us, "l2_warm": False, "how": "graph"}
        return report["Row"](operation, str(facts), contender, facts, 1.0, 100.0, timing=timing)

    rows = [
        row("uncertainty", "ours", 150, rows=512),  # 0.67 of the floor
        row("uncertainty", "ours", 400, rows=256),  # 0.25
        row("uncertainty", "ours", 900, rows=16),  # no bar is about so few
        row("uncertainty", "ours, with a draw", 200, rows=512),
        row("uncertainty", report["VLLM_CHAIN"], 2000, rows=512),
        row("scoring", "ours", 110, tokens=8),
        row("scoring", report["GEMM"], 100, tokens=8),
    ]
    share, chain, *forest, scoring = report["bars"](rows, "cuda")
    assert (share.found, share.cases, share.verdict) == (0.25, 2, "missed")
    assert (chain.found, chain.verdict) == (10, "met")
    assert (scoring.found, scoring.verdict) == (pytest.approx(1.1), "met")
    assert [bar.verdict for bar in forest] == ["not measured"] * 2


@pytest.mark.parametrize("flags", [(), ("--quick", "--only", "everything")])
def test_what_cannot_run_is_refused_at_once(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = run(tmp_path, *flags)
    assert done.returncode == 2 and "error:" in done.stderr
