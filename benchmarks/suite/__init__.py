"""A suite's YAML comes in; a graph of stages, their execution and one record per stage go out."""
