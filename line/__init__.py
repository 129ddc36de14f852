"""Frames to verdicts."""
