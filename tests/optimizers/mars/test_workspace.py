"""What a run knows, shared by threads, kept on disk, and whole whatever ends the program."""

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optillm_local import Completion, Prompt, Solution, TokenUsage
from optillm_local.core.errors import InvalidConfiguration, MarsError
from optillm_local.optimizers.mars import Draft, StrategyNetwork, Verification, Workspace
from optillm_local.optimizers.mars.database import SCHEMA_VERSION, Database


def draft(
    name: str, *parents: str, phase: str = "initial", reason: str = "stop", stated: str | None = "4"
) -> Draft:
    completion = Completion("2 + 2 is 4", (1, 2), reason, TokenUsage())  # type: ignore[arg-type]
    solution = Solution("4", id=name, phase=phase, parents=parents)
    return Draft(solution, Prompt.of("2 + 2?"), completion, 0, stated, 0)


def verdict(name: str, agent: str = "agent-1", probability: float = 0.9) -> Verification:
    return Verification(name, agent, probability, 1.0, "fine")


def test_what_is_returned_is_a_snapshot() -> None:
    workspace = Workspace()
    before = (workspace.drafts(), workspace.verifications())
    workspace.add(draft("a"))
    workspace.record(verdict("a"))
    assert before == ((), ())
    assert [one.id for one in workspace.drafts()] == ["a"]
    assert [one.passed for one in workspace.verifications("a")] == [True] and workspace.verifications("b") == ()


def test_a_solution_is_added_once_and_revised_only_after() -> None:
    workspace = Workspace()
    first = workspace.add(draft("a"))
    with pytest.raises(MarsError, match="a: there is a solution of that id already"):
        workspace.add(draft("a"))
    with pytest.raises(MarsError, match="b: there is no solution of that id"):
        workspace.revise(draft("b").solution)
    workspace.revise(first.solution.but(is_verified=True))
    assert [one.solution.is_verified for one in workspace.verified()] == [True]


def test_an_improvement_stands_in_for_what_it_improves_and_an_aggregate_does_not() -> None:
    workspace = Workspace()
    for one in (draft("a"), draft("b"), draft("a+1", "a", phase="improved"), draft("m", "b", phase="aggregated")):
        workspace.add(one)
    assert [one.id for one in workspace.heads()] == ["b", "a+1", "m"]


@pytest.mark.parametrize(
    ("reason", "stated", "cut"),
    [("stop", None, False), ("length", "4", False), ("length", None, True), ("abort", None, True)],
)
def test_only_what_ended_before_it_stated_an_answer_is_cut_off(reason: str, stated: str | None, cut: bool) -> None:
    assert draft("a", reason=reason, stated=stated).is_cut_off is cut


def test_threads_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    with Database(tmp_path / "mars.db") as database:
        workspace = Workspace(database)

        def work(thread: int) -> None:
            for number in range(20):
                made = workspace.add(draft(f"{thread}-{number}"))
                workspace.record(verdict(made.id))
                workspace.revise(made.solution.but(is_verified=True))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert len(workspace.verified()) == len(workspace.verifications()) == 160
        [found] = database.read("SELECT count(*) AS n FROM solutions WHERE json_extract(body, '$.is_verified')")
        assert found["n"] == 160


def test_several_connections_write_to_one_file_at_the_same_time(tmp_path: Path) -> None:
    path, ready = tmp_path / "mars.db", threading.Barrier(4)

    def run(number: int) -> None:
        ready.wait()
        with Database(path) as database:
            workspace, network = Workspace(database), StrategyNetwork(database)
            found = network.add("Same", "the same technique", question="?", discovered_by="agent-0")
            for turn in range(10):
                workspace.add(draft(f"{number}-{turn}"))
                network.rate(found.id, True)
            workspace.complete({"answer": "4"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    with Database(path) as database:
        [runs] = database.read("SELECT count(*) AS n, count(completed_at) AS done FROM runs")
        [solutions] = database.read("SELECT count(*) AS n FROM solutions")
        assert (runs["n"], runs["done"], solutions["n"]) == (4, 4, 40)
        assert [one.uses for one in StrategyNetwork(database).all()] == [40]


def test_a_killed_run_leaves_whole_rows_and_no_end(tmp_path: Path) -> None:
    path = tmp_path / "mars.db"
    code = f"""
import itertools, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workspace import Database, Workspace, draft, verdict
workspace = Workspace(Database({str(path)!r}), question="2 + 2?")
for number in itertools.count():
    workspace.record(verdict(workspace.add(draft(str(number))).id))
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        while "20" not in child.stdout.readline():
            pass
        child.send_signal(signal.SIGKILL)
    with Database(path) as database:
        assert database.read("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        [run] = database.read("SELECT question, completed_at FROM runs")
        [found] = database.read("SELECT count(*) AS n FROM solutions WHERE json_valid(body)")
        assert run == {"question": "2 + 2?", "completed_at": None} and found["n"] > 20


def test_a_file_of_a_newer_version_is_refused_by_its_number(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(InvalidConfiguration, match=f"has schema {SCHEMA_VERSION + 1} of a newer"):
        Database(tmp_path / "new.db")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("no/where.db", "no does not exist; create it first"),
        ("text.db", "is no SQLite file"),
        (".", "cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_a_remedy(name: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    with pytest.raises(InvalidConfiguration, match=f"mars option path=.*{remedy}"):
        Database(tmp_path / name)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    with pytest.raises(InvalidConfiguration, match="is a database of another program; name another file"):
        Database(tmp_path / "theirs.db")


def test_an_existing_file_is_gone_on_with(tmp_path: Path) -> None:
    for turn in (1, 2):
        with Database(tmp_path / "mars.db") as database:
            assert Workspace(database).run_id == turn
