"""Frozen features: images of a split in, pooled activations of a trunk out, kept in memory-mapped files by content."""
