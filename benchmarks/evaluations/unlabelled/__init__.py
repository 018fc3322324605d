"""Evaluations without labels: a trunk and any images in, measures of its features out."""
