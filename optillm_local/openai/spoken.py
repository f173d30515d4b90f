"""Text of sequences on its way to a reader: thinking apart from answers, and one sequence after the other."""

from __future__ import annotations

from collections.abc import Callable

from optillm_local.core.events import Event, SequenceCompleted, SequenceStarted, SpanBegin, TokensDecoded
from optillm_local.core.thinking import CLOSE, OPEN


class Spoken:
    """What one sequence says, piece by piece, split as `split_thinking` splits the whole.

    What may be the beginning of a tag, and white space that may be the last, are held back. That text without an
    opening tag is a thought cannot be told while it lasts: pass `opened`.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._tags = [CLOSE] if opened else [OPEN, CLOSE]
        self._is_thinking = opened
        self._held = ""
        self._thought, self._answer = _Trimmed(), _Trimmed()

    def add(self, text: str, *, is_last: bool = False) -> tuple[str, str]:
        """Further text: what of the thinking and what of the answer can be told now."""
        self._held += text
        thought = answer = ""
        while self._held:
            tag = self._tags[0] if self._tags else ""
            before, found, after = self._held.partition(tag) if tag else (self._held, "", "")
            kept = 0 if found or is_last else _begun(before, tag)
            told, self._held = before[: len(before) - kept], before[len(before) - kept :] + after
            if self._is_thinking:
                thought += self._thought.add(told)
            else:
                answer += self._answer.add(told)
            if not found:
                break
            self._tags.pop(0)
            self._is_thinking = not self._is_thinking
        return thought, answer


class _Trimmed:
    """Pieces of a text, without the white space around the whole."""

    def __init__(self) -> None:
        self._has_begun, self._space = False, ""

    def add(self, text: str) -> str:
        text = self._space + text if self._has_begun else text.lstrip()
        shown = text.rstrip()
        self._has_begun |= bool(shown)
        self._space = text[len(shown) :]
        return shown


def _begun(text: str, tag: str) -> int:
    """How many letters at the end of a text may be the beginning of a tag."""
    return next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)


class Narrator:
    """A watcher of a run that tells its sequences one after the other, each under the name of its step.

    Sequences decode side by side; the first that is still running is told as it goes, and those behind it
    when their turn comes.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._texts: dict[str, list[str]] = {}  # of those whose turn has not come
        self._ended: set[str] = set()
        self._speaker = ""
        self._phases: dict[str, str] = {}  # names of spans by their ids

    def __call__(self, event: Event) -> None:
        if isinstance(event, SpanBegin):
            self._phases[event.span_id] = event.name
        elif isinstance(event, SequenceStarted):
            name = event.log_tag or self._phases.get(event.span_id) or event.sequence_id
            self._texts[event.sequence_id] = [f"[{name}] "]
            self._go_on()
        elif isinstance(event, TokensDecoded):
            if event.sequence_id == self._speaker:
                self._tell(event.text)
            else:
                self._texts[event.sequence_id].append(event.text)
        elif isinstance(event, SequenceCompleted):
            self._ended.add(event.sequence_id)
            self._go_on()

    def _go_on(self) -> None:
        """Tell what was kept back of the next ones, up to one that still runs."""
        if self._speaker in self._ended:
            self._tell("\n\n")
            self._speaker = ""
        while self._texts and not self._speaker:
            self._speaker = next(iter(self._texts))
            self._tell("".join(self._texts.pop(self._speaker)))
            if self._speaker in self._ended:
                self._tell("\n\n")
                self._speaker = ""
