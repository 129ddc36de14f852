"""Values everybody speaks in. Standard library and NumPy only."""
