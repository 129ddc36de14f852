"""The inspection line: verdicts on frames and image files."""
