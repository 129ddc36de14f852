"""The arithmetic of the metrics: ranks, curves, connected components, pools of scores, threads."""
