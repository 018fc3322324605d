"""The report of a suite: one HTML file that needs no network and no other file."""

from benchmarks.results.report.report_page import write_report

__all__ = ["write_report"]
