"""Rewrites of the exported graph, one per file."""
