"""Evaluations by labels: frozen features or a trunk in, accuracy on the test split out."""
