"""Batches to weights: one trunk, one head per task, and the loop that trains them."""
