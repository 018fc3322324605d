"""Bytes to batches: shards, plan, pixels and the inputs and targets of the pretext tasks."""
