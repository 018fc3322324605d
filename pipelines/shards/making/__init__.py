"""Source items come in, planned shards, their records and the published manifest go out.

The plan is fixed before a byte is read; workers (processes or a Ray cluster) then make one shard at a time.
"""
