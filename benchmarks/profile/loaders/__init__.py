"""Loaders compared: fourfold, torch's DataLoader, webdataset, DALI's reader, SPDL, mosaicml-streaming and litdata make
the same tensors of the same samples on the same cores. What is measured and how: docs/loaders.md.
"""

from benchmarks.profile.loaders.compare import compare_loaders
from benchmarks.profile.loaders.options import CompareOptions
from benchmarks.profile.loaders.timings import loader_rows

__all__ = ["CompareOptions", "compare_loaders", "loader_rows"]
