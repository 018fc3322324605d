"""Studies of the data pipeline's speed: `python -m benchmarks.studies.throughput.NAME` measures and writes one JSON."""
