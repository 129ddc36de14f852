"""Does an engine give the reference's verdicts."""
