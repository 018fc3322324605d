"""A pipeline's configuration or a trained run comes in, and how much of each task can be solved by what is not meant.

Every task's inputs are cut down (one patch alone, a border, a mean color, a place) and a small probe, or the trained
model, must answer from what is left; out comes one `Finding` for each, beside chance and with an interval.
"""
