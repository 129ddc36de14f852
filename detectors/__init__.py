"""Anomaly detectors in PyTorch, one file per method."""
