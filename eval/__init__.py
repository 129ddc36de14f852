"""Is it right: metrics, parity in verdicts, calibration."""
