"""The early-stopping benchmark, run as its users run it, on a scripted model that rounds nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "early_stopping.py"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(PROGRAM), "--client", "scripted", "--questions", "4", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "of tokens saved" in done.stdout
    [record] = [json.loads(line) for line in (out / "early_stopping.jsonl").read_text().splitlines()]
    return list(record["pairs"])


def test_surviving_sequences_say_what_they_say_in_the_full_run(pairs: list[dict[str, Any]]) -> None:
    assert len(pairs) >= 2
    assert all(pair["identical_survivors"] == 1 and pair["survivors"] > pair["questions"] for pair in pairs)


def test_tokens_are_saved_and_what_is_thrown_away_is_counted(pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        low, high = pair["saved_interval"]
        assert 0 < low <= pair["saved"] <= high < 1
        reads = 0 if "stop" in pair["early"] else 16 * pair["questions"]  # each throws a token away
        assert pair["discarded"]["early"] > 0 and pair["discarded"]["full"] == reads
        assert pair["generated"]["early"] < pair["generated"]["full"]
        assert pair["failed"] == {"early": 0, "full": 0}


def test_a_decided_vote_has_the_answer_of_the_full_one(pairs: list[dict[str, Any]]) -> None:
    [decided] = [pair for pair in pairs if pair["early"].get("stop") == "decided"]
    assert decided["same_answers"] == 1
    assert decided["accuracy"]["early"] == decided["accuracy"]["full"]
