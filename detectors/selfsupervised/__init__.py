"""Networks that learn from synthetic defects in good images."""
