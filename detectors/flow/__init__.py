"""Normalising flows over features: the score is how improbable a feature is."""
