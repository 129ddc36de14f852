"""Networks that learn from defects made on purpose, or from tasks made of good images."""
