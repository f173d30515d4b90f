"""A package that is installed beside ours adds an optimizer to every door."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from optillm_local import create
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.registry import GROUP, names

EXAMPLE = Path(__file__).parent / "plugin_example"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example as an installer would leave it: no network and no build backend needed."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    for module in EXAMPLE.glob("*.py"):
        shutil.copy(module, site)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [f"{name} = {target}\n" for name, target in project["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(points)}")
    return site


def python(site: Path, code: str, *arguments: str) -> str:
    """What a new process with that folder prints."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_command_line_lists_it_with_its_options(site: Path) -> None:
    code = "import sys; from optillm_local.cli import main; sys.exit(main(sys.argv[1:]))"
    listed = {one["name"]: one for one in json.loads(python(site, code, "optimizers", "--json"))}
    assert "best_of_n" in listed
    assert listed["sandwich"]["description"] == "n drafts, a remark between, and the best second answer"
    assert [option["name"] for option in listed["sandwich"]["options"]] == ["n", "remark", "scorer"]


@pytest.mark.parametrize(
    ("name", "option"),
    [("sandwich", "n"), ("self_consistency@sandwich", "sandwich.n"), ("sandwich|single", "n")],
)
def test_it_is_made_by_name_and_answers_alone_and_combined(site: Path, name: str, option: str) -> None:
    code = """
import json, sys
from optillm_local import ScriptedClient, solve
client = ScriptedClient(lambda prompt: "The answer is 12." if prompt.log_tag == "second" else "Hm.")
result = solve("What is 3 * 4?", sys.argv[1], client=client, seed=0, **{sys.argv[2]: "3"})
print(json.dumps(result.as_dict()))
"""
    result = json.loads(python(site, code, name, option))
    assert "12" in result["answer"] and result["optimizer"] == name
    assert '"n": 3' in json.dumps(result["options"])


def test_a_misspelt_name_is_told_of_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    assert "sandwich" in names()
    with pytest.raises(InvalidConfiguration, match="Did you mean 'sandwich'"):
        create("sandwitch")
