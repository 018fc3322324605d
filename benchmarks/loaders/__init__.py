"""Loaders compared: one set of samples comes in, checked and timed rows of ten loaders go out (docs/loaders.md).

Every loader makes the same canvases of the same samples on the same cores, in a process of its own.
"""

from benchmarks.loaders.compare import compare_loaders
from benchmarks.loaders.options import CompareOptions
from benchmarks.loaders.timings import loader_rows

__all__ = ["CompareOptions", "compare_loaders", "loader_rows"]
