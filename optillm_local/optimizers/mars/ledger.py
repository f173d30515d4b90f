"""Who spent which tokens on what: read from the events, so it adds up to what the engine counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from optillm_local.core.events import Event, OptionsRead, SequenceCompleted, SpanBegin, TextScored
from optillm_local.core.span import current_span, listening
from optillm_local.core.usage import TokenUsage


@dataclass
class Ledger:
    """An event sink that sums up the usage of one span and all spans inside it.

    Attributes:
        spans: their names by id.
        entries: tokens by (phase, agent, purpose): the span of a call, and the `log_tag` the team gives it.
    """

    spans: dict[str, str]
    entries: dict[tuple[str, str, str], TokenUsage] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, SpanBegin):
            if event.parent_id in self.spans:
                self.spans[event.span_id] = event.name
        elif isinstance(event, SequenceCompleted | OptionsRead | TextScored) and event.span_id in self.spans:
            purpose, _, agent = event.log_tag.partition(" ")
            key = (self.spans[event.span_id], agent, purpose)
            self.entries[key] = self.entries.get(key, TokenUsage()) + TokenUsage(**event.usage.model_dump())

    def by(self, part: str) -> dict[str, TokenUsage]:
        """Totals by `phase`, `agent` or `purpose`, in the order they first came up."""
        place = ("phase", "agent", "purpose").index(part)
        totals: dict[str, TokenUsage] = {}
        for key, usage in self.entries.items():
            totals[key[place]] = totals.get(key[place], TokenUsage()) + usage
        return totals

    @property
    def total(self) -> TokenUsage:
        """All of it."""
        return sum(self.entries.values(), start=TokenUsage())


@contextmanager
def kept_ledger() -> Iterator[Ledger]:
    """Keep account of the span we are in."""
    here = current_span()
    ledger = Ledger({here.id: here.name})
    with listening(ledger):
        yield ledger
