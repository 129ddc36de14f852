"""Checkpoints of anomalib, read without anomalib, become runs of the same detectors in lineproof's form."""
