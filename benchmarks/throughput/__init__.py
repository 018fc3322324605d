"""Scripts that measure the data pipeline; each is run as `python -m benchmarks.throughput.NAME` and writes one JSON."""
