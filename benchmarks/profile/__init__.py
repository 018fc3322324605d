"""The profiler: which stage of a pipeline is slow, how far from the limit of this machine, and what would help."""
