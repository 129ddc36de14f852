"""Where verdicts go as they fall: one file per kind of sink."""
