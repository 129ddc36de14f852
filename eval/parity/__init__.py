"""Parity: whether an engine gives the reference's verdicts."""
