"""Distances to what good images showed: memory banks and Gaussians."""
