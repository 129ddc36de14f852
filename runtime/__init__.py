"""Engines that run a bundle's graph and give predictions, one file per library."""
