"""The table of a MARS run's solutions, for terminals and in plain lines."""

import io
import math

from rich.console import Console

from optillm_local import EngineStats, Prompt, Result, ScriptedClient, Solution, TokenUsage, asolve
from optillm_local.clients import Reply
from optillm_local.core.errors import ClientError
from optillm_local.report import result_panel, summary_lines
from optillm_local.report.solutions import MOST_ROWS, solution_lines, solution_report

VERDICTS = [("explore-0", 0.91), ("explore-1", 0.34), ("explore-0", 0.845), ("explore-1", None)]
BAD = Solution("a\x1b[2J [b]\nc" + " long" * 20, id="explore-1", agent_id="agent-1", phase="initial")
GOOD = Solution("12", id="explore-0", phase="initial", token_count=17, verification_score=0.866, is_verified=True)


def result(*solutions: Solution, confidence: float | None = 0.866, failures: int = 0) -> Result:
    quality = {
        "confidence": confidence,
        "assessment": "high" if confidence else "low",
        "solutions": len(solutions),
        "verified": 1,
        "distinct_answers": 2,
        "failures": failures,
    }
    about = {
        "final_solution_id": "explore-0",
        "iterations": 1,
        "quality": quality,
        "verifications": [{"solution_id": one, "probability": p} for one, p in VERDICTS],
        "usage": {"phase": {"exploration": {"total": 123}, "verification": {"total": 60}}},
    }
    return Result(
        solution=GOOD.but(metadata={"mars": about, "selection": "best of 1"}),
        optimizer="mars",
        options={},
        usage=TokenUsage(100, 0, 83),
        engine=EngineStats(steps=20, generated_tokens=40),
        solutions=solutions,
        budget_exhausted=False,
        seed=7,
        duration_s=2.0,
        model="m",
    )


def on_terminal(width: int, found: Result) -> list[str]:
    paper = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    paper.print(result_panel(found))
    assert isinstance(paper.file, io.StringIO)
    return [line.rstrip() for line in paper.file.getvalue().splitlines()]


def test_plain_lines_are_aligned_and_free_of_control_characters() -> None:
    assert solution_lines(result(BAD, GOOD)) == [
        "  solution  agent   phase   answer                           verdicts  verified confidence tokens",
        "  explore-1 agent-1 initial a [b] c long long long long lon… 0.34 -    no                -      0",
        "* explore-0 agent-0 initial 12                               0.91 0.84 yes            0.87     17",
        "quality: confidence 0.87 (high), 1 of 2 verified, 2 distinct answers, 1 round of improvement",
        "tokens by phase: exploration 123, verification 60",
    ]


def test_the_summary_has_them_between_choice_and_costs() -> None:
    chosen, heading, *_, by_phase, tokens, _ = summary_lines(result(GOOD))
    assert chosen == "chosen: best of 1" and heading.startswith("  solution ")
    assert by_phase.startswith("tokens by phase: ") and tokens.startswith("tokens: ")


def test_the_panel_has_them_between_answer_and_costs() -> None:
    lines = on_terminal(80, result(BAD, GOOD))
    assert lines[3:6] == [
        "best of 1",
        "  solution  agent   phase   answer          verdicts  verified confidence tokens",
        "  explore-1 agent-1 initial a [b] c long l… 0.34 -    no                -      0",
    ]
    assert lines[-4].startswith("tokens by phase: ") and lines[-3].startswith("prompt ")


def test_unknown_confidence_failed_steps_and_empty_answers_are_said() -> None:
    empty = Solution("", id="explore-2", phase="improved")
    _, row, quality, _ = solution_lines(result(empty, confidence=None, failures=1))
    assert row.split() == ["explore-2", "agent-0", "improved", "(empty)", "-", "no", "-", "0"]
    assert quality.startswith("quality: confidence - (low), ")
    assert quality.endswith(", 1 round of improvement, 1 failed step")


def test_of_many_solutions_the_selected_and_the_verified_are_shown() -> None:
    many = [Solution(str(n), id=f"rsa-{n}", is_verified=n == 50) for n in range(60)]
    lines = solution_lines(result(*many, GOOD))
    shown = [line.split()[0] for line in lines[1 : 1 + MOST_ROWS]]
    assert shown == [*(f"rsa-{n}" for n in range(MOST_ROWS - 2)), "rsa-50", "*"]
    assert lines[1 + MOST_ROWS] == "… and 41 more"


def test_verdicts_of_many_verifiers_are_cut() -> None:
    found = result(GOOD)
    found.solution.metadata["mars"]["verifications"].extend(
        [{"solution_id": "explore-0", "probability": 0.5}] * 30
    )
    assert " 0.50 0.50 0… yes " in solution_lines(found)[1]


async def test_a_run_of_mars_has_them_and_other_runs_do_not() -> None:
    client = ScriptedClient(lambda prompt: "Final answer: 12", choices={"Yes": 0.8, "No": 0.2})
    mars = await asolve("What?", "mars", client=client, seed=0)
    _, *rows, quality, by_phase = solution_lines(mars)
    assert sorted(row.split()[:6] for row in rows) == [  # trio finishes them in any order
        ["*", "explore-0", "agent-0", "initial", "12", "0.80"],
        ["explore-1", "agent-1", "initial", "12", "0.80", "0.80"],
    ]
    assert quality.endswith("2 of 2 verified, 1 distinct answer, 0 rounds of improvement")
    shares = [int(part.split()[-1]) for part in by_phase.split(",")]
    assert sum(shares) == mars.usage.total
    other = await asolve("What?", "single", client=client, seed=0)
    assert solution_report(other) == solution_lines(other) == []


async def test_a_run_that_nobody_could_judge_is_reported() -> None:
    def cannot(prompt: Prompt, options: object) -> dict[str, float]:
        raise ClientError("no probabilities here")

    client = ScriptedClient(lambda prompt: Reply("Final answer: 5", math.nan), choices=cannot)
    found = await asolve("What?", "mars", client=client, seed=0, agents=1, max_iterations=0)
    _, row, quality, _ = solution_lines(found)
    assert row.split() == ["*", "explore-0", "agent-0", "initial", "5", "-", "no", "0.50", "3"]
    assert quality.startswith("quality: confidence 0.50 (low), 0 of 1 verified, 1 distinct answer, ")
    assert quality.endswith(", 2 failed steps")


async def test_with_a_known_answer_the_right_verdicts_are_counted() -> None:
    client = ScriptedClient(lambda prompt: "Final answer: 12", choices={"Yes": 0.8, "No": 0.2})
    result = await asolve("What?", "mars", client=client, seed=0, reference_answer="12")
    assert any("4 of 4 verdicts right" in line for line in solution_lines(result))
