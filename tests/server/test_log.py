"""The log of conversations: only on request, whole lines, bounded."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from optillm_local.core.errors import InvalidConfiguration
from optillm_local.server import ConversationLog

from .conftest import Asking, Serving

CHAT = "/v1/chat/completions"


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_is_one_line(tmp_path: Path, serving: Serving, asking: Asking, stream: bool) -> None:
    body = asking(stream=stream, optillm_approach="self_consistency")
    async with serving(log=ConversationLog(tmp_path)) as http:
        answer = await http.post(CHAT, json=body)
    [entry] = entries(tmp_path)
    assert entry["client_request"] == body
    assert entry["request_id"] == answer.headers["x-request-id"]
    assert (entry["approach"], entry["model"], entry["error"]) == ("self_consistency", "scripted", None)
    assert "12" in entry["final_response"]["choices"][0]["message"]["content"]
    assert [call["call_number"] for call in entry["provider_calls"]] == [1, 2, 3, 4, 5]
    assert entry["provider_calls"][0]["response"]["text"] == "It is 12"


async def test_what_was_refused_after_it_was_understood_is_logged_with_the_reason(
    tmp_path: Path, serving: Serving, asking: Asking
) -> None:
    async with serving(log=ConversationLog(tmp_path)) as http:
        await http.post(CHAT, json=asking(optillm_approach="no_such"))
    [entry] = entries(tmp_path)
    assert "no_such" in entry["error"]
    assert entry["final_response"] is None


async def test_without_it_no_text_is_written_anywhere(
    serving: Serving, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as http:
        for body in (
            asking("the secret"),
            asking("the secret", stream=True),
            asking("the secret", n="the secret"),
        ):
            await http.post(CHAT, json=body)
        await http.get("/the secret")
    assert "optillm_local.server" in {record.name for record in caplog.records}
    ours = [record for record in caplog.records if record.name.startswith("optillm_local")]
    assert not any("secret" in record.getMessage() for record in ours)


def test_files_are_rotated_and_old_ones_go(tmp_path: Path) -> None:
    log = ConversationLog(tmp_path, file_bytes=100, keep=3)
    (tmp_path / "conversations_2020-01-01.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("not ours")
    for number in range(8):
        log.write({"number": number, "text": "x" * 40})
    assert (tmp_path / "notes.txt").exists()
    (tmp_path / "notes.txt").unlink()
    assert [entry["number"] for entry in entries(tmp_path)] == [5, 6, 7]
    assert all(file.stat().st_size <= 100 for file in tmp_path.iterdir())
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


def test_a_line_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    log = ConversationLog(tmp_path, file_bytes=10)
    for _ in range(2):
        log.write({"text": "x" * 40})
    assert len(entries(tmp_path)) == len(list(tmp_path.iterdir())) == 2


async def test_a_log_that_cannot_be_written_does_not_fail_the_request(
    tmp_path: Path, serving: Serving, asking: Asking
) -> None:
    log = ConversationLog(tmp_path / "logs")
    (tmp_path / "logs").rmdir()
    async with serving(log=log) as http:
        answer = await http.post(CHAT, json=asking())
    assert answer.status_code == 200


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfiguration, match="cannot be made"):
        ConversationLog(tmp_path / "file" / "logs")
