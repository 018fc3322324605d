"""Shards: tars of samples, their DALI index, and the manifest of the folder."""
