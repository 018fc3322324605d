"""Measurements: suites, evaluations, statistics, reports, the profiler, and the `fourfold` command."""
