"""Store of stages, OUT/stages, which several suites and runs may share: a lock per stage, and what is running."""
