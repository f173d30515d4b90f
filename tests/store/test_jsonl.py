"""The record of a run: complete whatever ends the program, and honest about damage."""

from pathlib import Path

import pytest

from optillm_local import ScriptedClient, asolve
from optillm_local.core.errors import InvalidConfiguration, ParsingError
from optillm_local.core.events import AnswerSelected, Event, RunCompleted, SpanBegin, TokensDecoded
from optillm_local.store import JsonlRecord, read_events

EVENTS: list[Event] = [
    SpanBegin(span_id="a", name="explore", parent_id=""),
    AnswerSelected(span_id="a", solution_id="s", answer="π\u2028\r\n≈ 3", selection="only one"),
]


def written(path: Path) -> Path:
    with JsonlRecord(path) as record:
        for event in EVENTS:
            record(event)
    return path


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    assert read_events(written(tmp_path / "run.jsonl")) == EVENTS


def test_each_event_is_on_disk_before_the_next(tmp_path: Path) -> None:
    record = JsonlRecord(tmp_path / "run.jsonl")
    for count, event in enumerate(EVENTS, start=1):
        record(event)
        assert read_events(record.path) == EVENTS[:count]
    record.close()
    record.close()


def test_a_record_replaces_an_older_one(tmp_path: Path) -> None:
    written(tmp_path / "run.jsonl")
    assert read_events(written(tmp_path / "run.jsonl")) == EVENTS


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "run.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_events(path) == EVENTS[: 2 if cut == 1 else 1]  # without its line end alone it is still whole


def test_a_line_cut_inside_a_character_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[: content.index("π".encode()) + 1])
    assert read_events(path) == EVENTS[:1]


@pytest.mark.parametrize("line", [b"{}", b"", b"{not json", b'{"event":"no_such_event"}', b"\xff\x00"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_corrupt_line_names_file_and_line(tmp_path: Path, line: bytes, number: int) -> None:
    path = written(tmp_path / "run.jsonl")
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(each + b"\n" for each in [*lines[: number - 1], line, *lines[number - 1 :]]))
    with pytest.raises(ParsingError, match=rf"run\.jsonl, line {number}: not an event: "):
        read_events(path)


def test_an_empty_record_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").touch()
    assert read_events(tmp_path / "run.jsonl") == []


def test_a_place_that_cannot_work_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"no/such does not exist; create it first"):
        JsonlRecord(tmp_path / "no/such/run.jsonl")
    with pytest.raises(InvalidConfiguration, match="is a directory; name a file"):
        JsonlRecord(tmp_path)
    with pytest.raises(InvalidConfiguration, match="cannot be read: No such file"):
        read_events(tmp_path / "missing.jsonl")


async def test_a_run_is_recorded_without_its_single_tokens(tmp_path: Path) -> None:
    with JsonlRecord(tmp_path / "run.jsonl") as record:
        client = ScriptedClient(lambda prompt: "The answer is 12.")
        result = await asolve("What?", n=3, seed=1, client=client, sinks=[record])
    events = read_events(tmp_path / "run.jsonl")
    assert not any(isinstance(event, TokensDecoded) for event in events)
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].answer == result.answer == "12"


async def test_a_full_disk_costs_the_record_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with JsonlRecord("/dev/full") as record:
        client = ScriptedClient(lambda prompt: "The answer is 12.")
        result = await asolve("What?", n=3, client=client, sinks=[record])
    assert result.answer == "12"
    assert "No space left on device" in caplog.text
