"""Does the profiler tell the truth? Bottlenecks are planted and its verdicts counted. Writes one JSON."""
