"""The commands beside `solve`, the help, and what importing the command line costs."""

import json
import re
import subprocess
import sys

import pytest

from optillm_local.cli import main


def test_optimizers_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizers", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"single", "best_of_n", "self_consistency"} <= set(listed)
    n, *_ = listed["self_consistency"]["options"]
    assert n == {"name": "n", "type": "int", "default": 5, "description": "reasoning paths to sample"}
    assert main(["optimizers"]) == 0
    assert "uniform | probability" in capsys.readouterr().out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"optillm-local \d+\.\d+\.\d+\n", capsys.readouterr().out)
    for args in (["--help"], ["solve", "--help"], ["optimizers", "-h"], ["doctor", "-h"]):
        assert main(args) == 0
        assert "Usage: optillm-local" in capsys.readouterr().out


def test_importing_the_command_line_is_light() -> None:
    heavy = ["torch", "vllm", "transformers", "sympy", "math_verify", "numpy"]
    code = f"import sys, optillm_local.cli; sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
