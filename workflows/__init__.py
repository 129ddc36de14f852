"""The chain in one call: the only place where the training side and the target side meet."""
