"""Measurements: suites, evaluations, statistics, reports, and the fourfold command."""
