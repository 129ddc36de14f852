"""What the metrics are computed with: ranks, curves, components, bags of numbers, threads."""
