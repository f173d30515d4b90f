"""The command line, from arguments to exit codes, with a scripted model in the place of the engine."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optillm_local import ModelClient, Optimizer, Prompt, ScriptedClient, Solution, registry
from optillm_local.cli import main
from optillm_local.cli.solve import parse_options
from optillm_local.core import errors
from optillm_local.core.options import frozen_options
from optillm_local.store import read_events


def say(answer: Callable[[Prompt], str]) -> Callable[..., ModelClient]:
    return lambda settings, progress: ScriptedClient(answer)


def twelve(settings: Any, progress: Callable[[str], None]) -> ModelClient:
    progress("loading a script")
    return ScriptedClient(lambda prompt: "The answer is 12.")


def no_engine(settings: Any, progress: Callable[[str], None]) -> ModelClient:
    pytest.fail("the engine was started for a command that cannot work")


@frozen_options
class Fails(Optimizer):
    """Raises the error it is told to."""

    name = "fails"
    description = "for tests"
    error: str = "NoSolutions"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        made: dict[str, Exception] = {
            "BudgetExceeded": errors.BudgetExceeded("tokens", 2, 1),
            "RequestRejected": errors.RequestRejected("max_tokens", 9999, "the context ends at 2048"),
            "KeyError": KeyError("what"),
        }
        raise made.get(self.error) or getattr(errors, self.error)("it went wrong")


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    registry.register(Fails)
    yield
    del registry._registered["fails"]


# -- answers -----------------------------------------------------------------------------------------------------


def test_the_answer_alone_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "What is 3 * 4?"], client_factory=twelve) == 0
    out, err = capsys.readouterr()
    assert out == "12\n"
    assert "using the embedded model SmolLM2-135M-Instruct" in err
    assert "engine: loading a script" in err
    assert re.search(r"chosen: .* paths agree.*\ntokens: prompt .*\nengine: ", err)


def test_json_is_one_object_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["solve", "What?", "--json", "--seed", "5", "-o", "n=3", "-o", "weights=probability"]
    assert main(args, client_factory=twelve) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = (
        "answer reasoning optimizer options usage engine solutions budget_exhausted seed duration_s model versions"
    )
    assert set(wanted.split()) <= set(found)
    assert {"prompt", "cached", "completion", "reasoning", "discarded", "total"} == set(found["usage"])
    assert {"steps", "computed_prompt_tokens", "generated_tokens", "mean_batch"} <= set(found["engine"])
    assert (found["answer"], found["seed"], found["model"]) == ("12", 5, "scripted")
    assert found["options"] == {"n": 3, "weights": "probability", "stop": "decided"}


def test_what_libraries_print_does_not_reach_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(settings: Any, progress: Any) -> ModelClient:
        sys.stdout.write("INFO loading\n")
        return twelve(settings, progress)

    assert main(["solve", "What?", "--json"], client_factory=chatty) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["answer"] == "12"
    assert "INFO loading" in err


def test_a_terminal_gets_a_spinner_and_a_live_view(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["solve", "What?", "--seed", "1"], client_factory=twelve) == 0
    out, err = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
    assert out == "12\n"
    assert "starting the engine" in plain
    assert "self_consistency on scripted, seed 1" in plain and "votes: 12 (5)" in plain


def test_mars_shows_its_solutions(capsys: pytest.CaptureFixture[str]) -> None:
    def sure(settings: Any, progress: Any) -> ModelClient:
        return ScriptedClient(lambda prompt: "Final answer: 12", choices={"Yes": 0.9, "No": 0.1})

    assert main(["solve", "What is 3 * 4?", "-O", "mars", "--seed", "0"], client_factory=sure) == 0
    out, err = capsys.readouterr()
    assert out == "12\n"
    assert re.search(r"\n\* explore-0 agent-0 initial 12 +0\.90 0\.90 yes +0\.\d\d +3\n", err)
    assert "\nquality: confidence 0." in err and "\ntokens by phase: exploration " in err


def test_options_reach_the_model() -> None:
    clients: list[ScriptedClient] = []

    def remember(settings: Any, progress: Any) -> ModelClient:
        assert settings.model == "some/model"
        clients.append(ScriptedClient(lambda prompt: "12"))
        return clients[0]

    args = "solve Q -O single --system Briefly. --model some/model --max-tokens 9 --temperature 0 --seed 4"
    assert main(args.split(), client_factory=remember) == 0
    [prompt] = clients[0].prompts
    assert [(m.role, m.content) for m in prompt.conversation] == [("system", "Briefly."), ("user", "Q")]
    sampling = prompt.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (9, 0.0, 4)
    assert clients[0]._closed


def test_defaults_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["solve", "Q", "-O", "single"]
    code = main(args, client_factory=say(lambda p: f"{p.sampling.max_tokens} {p.sampling.temperature}"))
    assert (code, capsys.readouterr().out) == (0, "512 0.7\n")


def test_a_question_from_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Wieviel ist 3·4?\n".encode())))
    assert main(["solve", "-", "-O", "single"], client_factory=say(lambda prompt: prompt.question)) == 0
    assert capsys.readouterr().out == "Wieviel ist 3·4?\n"


def test_the_events_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    assert main(["solve", "Q", "--events", str(file)], client_factory=twelve) == 0
    names = [event.event for event in read_events(file)]
    assert names[0] == "run_started" and names[-1] == "run_completed"


def test_a_spent_budget_still_answers(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["solve", "Q", "-O", "single", "--budget-tokens", "3", "--json"]
    assert main(args, client_factory=say(lambda prompt: "one two three four")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answer"], found["usage"]["completion"]) == ("one two three", 3)


# -- usage errors: at once, without an engine --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("-o n", "-o='n': write it as key=value, such as -o n=8"),
        ("-o =3", "write it as key=value"),
        ("-o n=1 -o n=2", "is given twice"),
        ("-o n=abc", "self_consistency option n='abc': Input should be a valid integer"),
        ("-o nn=3", "Did you mean 'n'?"),
        ("-o n=[1", "is not valid JSON"),
        ("--optimizer best_of", "Did you mean 'best_of_n'?"),
        ("--temperature 9", "temperature=9.0: must be between 0 and 2"),
        ("--temperature warm", "--temperature"),
        ("--max-tokens 0", "max_tokens=0: must be at least 1"),
        ("--seed -1", "seed=-1: must be at least 0"),
        ("--budget-tokens 0", "budget tokens=0: must be a whole number of at least 1"),
        ("--budget-seconds nan", "budget seconds=nan: must be a finite number above 0"),
        ("--events /nonexistent/x.jsonl", "/nonexistent does not exist; create it first"),
        ("--settings /nonexistent/x.toml", "settings file='/nonexistent/x.toml'"),
        ("--modle x", "--model"),
    ],
)
def test_a_value_that_cannot_work_is_named(args: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "Q", *args.split()], client_factory=no_engine) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and message in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("question", ["", "  \n", "\udcff"])
def test_a_question_must_be_text(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", question], client_factory=no_engine) == 2
    assert "error: question=" in capsys.readouterr().err


def test_an_empty_stdin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["solve", "-"], client_factory=no_engine) == 2


@pytest.mark.parametrize("args", [[], ["solve"], ["slove"], ["--nonsense"]])
def test_a_command_line_that_is_none(args: list[str]) -> None:
    assert main(args, client_factory=no_engine) == 2


def test_a_refused_command_leaves_an_older_record_alone(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("older")
    assert main(["solve", "Q", "--events", str(file), "-o", "n=0"], client_factory=no_engine) == 2
    assert file.read_text() == "older"


def test_option_values_that_are_json() -> None:
    assert parse_options(["a=[0.3, 1]", "b-c={}", "d=[", "e==x"][:2]) == {"a": [0.3, 1], "b_c": {}}
    assert parse_options(["e==x", "f="]) == {"e": "=x", "f": ""}


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("RequestRejected", 2),
        ("NoSolutions", 3),
        ("AnswerExtractionError", 3),
        ("BudgetExceeded", 3),
        ("ParsingError", 3),
        ("Truncated", 3),
        ("ClientError", 4),
        ("EngineDead", 4),
        ("EngineOutOfMemory", 4),
        ("ModelNotFound", 4),
        ("Unsupported", 4),
        ("KeyError", 1),
    ],
)
def test_exit_codes(error: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.jsonl"
    args = ["solve", "Q", "-O", "fails", "-o", f"error={error}", "--events", str(file)]
    assert main(args, client_factory=twelve) == code
    out, err = capsys.readouterr()
    assert out == "" and "\nerror: " in err and "Traceback (" not in err
    assert read_events(file)[0].event == "run_started"


def test_an_engine_that_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(settings: Any, progress: Any) -> ModelClient:
        error = errors.EngineOutOfMemory("the KV cache does not fit")
        error.add_note("lower max_model_len")
        raise error

    assert main(["solve", "Q"], client_factory=fails) == 4
    assert capsys.readouterr().err.endswith("error: the KV cache does not fit\nlower max_model_len\n")


def test_an_empty_answer_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "Q", "-O", "single", "--json"], client_factory=say(lambda prompt: "")) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["answer"] == "" and "the answer is empty" in err


def test_a_traceback_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPTILLM_LOCAL_DEBUG", "1")
    assert main(["solve", "Q", "-o", "n=0"], client_factory=no_engine) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_ends_what_runs_and_keeps_the_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clients: list[ScriptedClient] = []

    def interrupted(prompt: Prompt) -> str:
        if len(clients[0].prompts) == 2:
            signal.raise_signal(signal.SIGINT)
        return "word " * 10_000

    def remember(settings: Any, progress: Any) -> ModelClient:
        clients.append(ScriptedClient(interrupted))
        return clients[0]

    file = tmp_path / "run.jsonl"
    assert main(["solve", "Q", "--json", "--events", str(file)], client_factory=remember) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("interrupted\n")
    assert clients[0]._closed
    assert [event.event for event in read_events(file)].count("sequence_completed") == 5


def test_ctrl_c_does_not_wait_for_a_model_that_loads(tmp_path: Path) -> None:
    code = "import sys, time; from optillm_local.cli import main; " + (
        "sys.exit(main(['solve', 'Q'], client_factory=lambda settings, tell: (tell('loading'), time.sleep(60))))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        while "loading" not in child.stderr.readline():
            pass
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=20) == 130
        assert child.stderr.read() == "interrupted\n"
