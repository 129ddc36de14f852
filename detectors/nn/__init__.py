"""Modules that detectors of several families are built of."""
