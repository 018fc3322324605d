"""Running pipelines: a configuration comes in, a stream of steps goes out, made ahead by threads or processes.

A step depends on the configuration, the seed and its position alone, so restarts, threads and processes change nothing.
"""
