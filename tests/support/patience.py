"""Deadline of waits in tests."""

PATIENT_SECONDS = 300.0
"""Time allowed for an event that must happen: long enough on a machine that other work keeps busy."""
