"""The report of a suite: one HTML file that needs no network and no other file; and its tables and charts as files."""

from benchmarks.results.report.report_page import export_report, write_report

__all__ = ["export_report", "write_report"]
