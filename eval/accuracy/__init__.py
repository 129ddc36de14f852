"""Accuracy: whether scores, maps and verdicts are right, by labels and masks."""
