"""A build configuration comes in, what the build would make, cost and refuse goes out. No shard is published.

A few items of the plan are really made into temporary shards, so that sizes and seconds are measured.
"""
