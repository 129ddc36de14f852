"""Are the verdicts right, by labels and masks."""
