"""Bundle to engine to prediction, one file per engine."""
