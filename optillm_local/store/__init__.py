"""Runs on disk: one JSON line per event."""

from optillm_local.store.jsonl import JsonlRecord, read_events

__all__ = ["JsonlRecord", "read_events"]
