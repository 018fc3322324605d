"""Trials of the profiler: bottlenecks are planted, and its right verdicts counted. Writes one JSON."""
