"""Foundations of every other folder: errors, configs, addressed random numbers, atomic files, threads, progress bars.

Nothing here knows of images, shards or tasks. Paths, seeds and plain values come in and go out.
"""
