"""Profiles of engines: latency, throughput, memory, cold start, size and parameters."""
