"""What every other folder builds on: errors, configs, addressed random numbers, whole files, threads, progress.

Nothing here knows of images, shards or tasks.
"""
