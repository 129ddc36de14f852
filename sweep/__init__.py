"""Many cells, each a detector carried from its images to a proved, measured bundle; today the chain of one."""
