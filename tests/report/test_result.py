"""The final report, for programs and for people."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from optillm_local import EngineStats, Result, Solution, TokenUsage
from optillm_local.report import result_panel, summary_lines, to_json
from optillm_local.report.text import one_line, printable, shortened, tail


def result() -> Result:
    solution = Solution("12", "3 * 4 is 12", metadata={"selection": "3 of 4 agree", "mean_logprob": math.nan})
    return Result(
        solution=solution,
        optimizer="self_consistency",
        options={"n": 4, "kinds": (object, 1j)},
        usage=TokenUsage(100, 64, 40, 0, 10),
        engine=EngineStats(steps=20, generated_tokens=40),
        solutions=[solution],
        budget_exhausted=False,
        seed=7,
        duration_s=2.0,
        model="m",
    )


def test_json_is_strict_and_complete() -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    line = to_json(result())
    assert "\n" not in line
    read = json.loads(line, parse_constant=refuse)
    assert read["solutions"][0]["metadata"] == {"selection": "3 of 4 agree", "mean_logprob": None}
    assert read["usage"] == {
        "prompt": 100,
        "cached": 64,
        "completion": 40,
        "reasoning": 0,
        "discarded": 10,
        "total": 140,
    }
    assert read["options"]["kinds"] == ["<class 'object'>", "1j"]


def test_the_panel_shows_answer_choice_and_costs() -> None:
    paper = Console(file=io.StringIO(), width=80)
    paper.print(result_panel(result()))
    assert isinstance(paper.file, io.StringIO)
    shown = paper.file.getvalue()
    assert "│ 12 " in shown and "3 of 4 agree" in shown
    heading, row = [line for line in shown.splitlines() if line.startswith(("prompt", "   100"))]
    assert heading.split("  ")[:3] == ["prompt", "cached", "completion"]
    assert row.split() == ["100", "64", "40", "10", "20", "2.0", "2.0"]


def test_the_summary_says_when_the_budget_ended_the_run() -> None:
    chosen, tokens, engine = summary_lines(replace(result(), budget_exhausted=True))
    assert chosen == "chosen: 3 of 4 agree; the budget is spent"
    assert tokens == "tokens: prompt 100 (cached 64), completion 40 (reasoning 0, discarded 10), total 140"
    assert engine == "engine: 20 steps, mean batch 2.0, 2.0 s, 20 tokens/s; seed 7"


def test_text_for_terminals() -> None:
    assert printable("a\x1b[31mb\x07\tc\nd\x9b") == "ab\tc\nd"
    assert one_line(" a\n\n\x1b[31m b\u00a0 c ") == "a b c"
    assert shortened("abcdef", 6) == "abcdef" and shortened("abcdefg", 6) == "abcde…"
    assert tail("abcdefg", 6) == "…cdefg"
    assert (shortened("答案是十二", 6), tail("答案是十二", 6)) == ("答案…", "…十二")  # two columns each
