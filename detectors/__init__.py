"""Detectors in PyTorch, one file per method."""
