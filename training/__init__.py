"""Batches to weights: a configuration and a pipeline come in, a trained trunk, its checkpoints and logs go out."""
