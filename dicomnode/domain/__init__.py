"""Decisions: pure functions of (facts, settings, now). Standard library only, no clock, no I/O."""
