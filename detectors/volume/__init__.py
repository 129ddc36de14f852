"""Detectors of organised scans: depth images and voxels, with colours or without; and what they share."""
