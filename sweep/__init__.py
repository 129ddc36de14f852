"""The chain from images to a proved, measured bundle, and its demo on the built-in sample."""
