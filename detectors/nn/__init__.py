"""Modules that detectors of several families share."""
