"""Weights on disk: checkpoints that a run resumes from, weights of other libraries, and export for them."""
