"""The real worker process; it takes a second to start, so the tests share one where they can."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from optillm_local.answers import _process, equivalence_classes
from optillm_local.answers._process import NoVerdict, NoWorker, Worker

ENDLESS = "9^{9^{9^9}}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def pid_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process._popen.pid


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # a container's first process may leave it so


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not has_ended(pid):
        time.sleep(0.05)
    return has_ended(pid)


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    path = folder / "script.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)


def test_the_first_of_equal_rivals_is_found(shared: Worker) -> None:
    assert shared.first_equal("2", ["x", r"\sqrt{4}", "2"], 20.0) == 1
    assert shared.first_equal("2", ["3", "x"], 20.0) is None
    assert shared.first_equal("\ud800\n", ["\u00e9", r"\alpha"], 20.0) is None
    assert shared.first_equal("2", ["2"] + ["3" * 50] * 10_000, 20.0) == 0


def test_a_process_that_takes_too_long_is_killed_and_another_one_started(shared: Worker) -> None:
    assert shared.first_equal("2", ["2"], 20.0) == 0
    before = pid_of(shared)
    with pytest.raises(NoVerdict, match="timed out"):
        shared.first_equal(ENDLESS, [], 0.2)
    assert ends_within(before, 0.0)
    assert shared.first_equal("2", ["3", r"\sqrt{4}"], 20.0) == 1
    assert pid_of(shared) != before


def test_the_start_is_not_counted_against_the_time_of_a_formula(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "worker.py"
    path.write_text("import time; time.sleep(3); print(0, flush=True); input(); print(7, flush=True)")
    monkeypatch.setattr(_process, "_PROGRAM", path)
    worker = Worker()
    assert worker.first_equal("2", ["2"], 2.5) == 7
    worker.close()


def test_a_reply_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "worker.py"
    say = "import sys, time; say = lambda text: (sys.stdout.write(text), sys.stdout.flush(), time.sleep(0.2))\n"
    path.write_text(say + "say('0'); say('\\n'); input(); say('1'); say('7'); say('\\n')")
    monkeypatch.setattr(_process, "_PROGRAM", path)
    worker = Worker()
    assert worker.first_equal("2", ["2"], 20.0) == 17
    worker.close()


def test_a_process_that_died_is_replaced(shared: Worker) -> None:
    assert shared.first_equal("2", ["2"], 20.0) == 0
    os.kill(pid_of(shared), signal.SIGKILL)
    assert ends_within(pid_of(shared), 5.0)
    assert shared.first_equal("2", ["2"], 20.0) == 0


def test_a_process_that_dies_of_a_formula_is_no_verdict(shared: Worker) -> None:
    assert shared.first_equal("2", ["2"], 20.0) == 0
    threading.Timer(0.2, os.kill, [pid_of(shared), signal.SIGKILL]).start()
    with pytest.raises(NoVerdict, match="ended"):
        shared.first_equal(ENDLESS, [], 20.0)


def test_a_process_cannot_take_all_memory(shared: Worker) -> None:
    assert shared.first_equal("2", ["2"], 20.0) == 0
    limits = Path(f"/proc/{pid_of(shared)}/limits").read_text()
    assert re.search(r"Max address space +2147483648 +2147483648 ", limits)


def test_threads_take_turns(shared: Worker) -> None:
    found: dict[int, int | None] = {}

    def ask(index: int) -> None:
        found[index] = shared.first_equal(str(index), [str(rival) for rival in range(10)], 20.0)

    threads = [threading.Thread(target=ask, args=[index]) for index in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: index for index in range(10)}


def test_a_forked_child_does_not_ask_its_parents_process(shared: Worker) -> None:
    assert shared.first_equal("2", ["2"], 20.0) == 0
    child = os.fork()
    if child == 0:
        os._exit(0 if shared._process is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared.first_equal("2", ["3", "2"], 20.0) == 1


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_a_process_that_does_not_start(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "worker.py"
    path.write_text(program)
    monkeypatch.setattr(_process, "_PROGRAM", path)
    with pytest.raises(NoWorker, match=r"worker\.py: "):
        Worker(start_s=0.5).first_equal("2", ["2"], 20.0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NoWorker, match="/nowhere/python"):
        Worker().first_equal("2", ["2"], 20.0)


def test_one_process_serves_one_event_loop_after_the_other(
    monkeypatch: pytest.MonkeyPatch, shared: Worker
) -> None:
    monkeypatch.setattr("optillm_local.answers.equal._worker", shared)
    assert shared.first_equal("2", ["2"], 20.0) == 0
    before = pid_of(shared)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(equivalence_classes, [r"\sqrt{4}", "2", "3"], backend=backend) == [0, 0, 1]
    assert pid_of(shared) == before


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise RuntimeError('not the one to import')")
    script = r"""
import anyio
from optillm_local.answers import equal, equivalence_classes
print("the marker")
for _ in range(2):
    print(anyio.run(equivalence_classes, [r"\sqrt{4}", "2", "x + 1", "1 + x"]))
print(equal._worker._process._popen.pid)
"""
    done = run(script, tmp_path)
    *lines, pid = done.stdout.splitlines()
    assert (lines, done.stderr) == (["the marker", "[0, 0, 1, 1]", "[0, 0, 1, 1]"], "")
    assert ends_within(int(pid), 5.0)


def test_a_forked_child_leaves_nothing_unclosed(tmp_path: Path) -> None:
    script = r"""
import os, sys
from optillm_local.answers._process import Worker
worker = Worker()
worker.first_equal("2", ["2"], 20.0)
if child := os.fork():
    os.waitpid(child, 0)
    print(worker.first_equal("2", ["3", "2"], 20.0))
else:
    sys.exit()
"""
    done = run(script, tmp_path)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_nothing_outlives_a_killed_caller(tmp_path: Path) -> None:
    script = rf"""
import os, signal, threading, time
from optillm_local.answers._process import Worker
worker = Worker()
worker.first_equal("2", ["2"], 20.0)
print(worker._process._popen.pid, flush=True)
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGKILL]).start()
worker.first_equal("{ENDLESS}", [], 1.0)
"""
    done = run(script, tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert ends_within(int(done.stdout), 10.0)
