"""Distances to the features of good images: memory banks and Gaussians."""
