"""Values that every folder shares: specifications, predictions, thresholds, errors. Standard library and NumPy only."""
