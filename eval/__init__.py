"""Evaluation: accuracy on labelled images, parity of an engine with the reference, calibration of thresholds."""
