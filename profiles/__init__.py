"""How fast and how large: latency, throughput, memory, parameters."""
