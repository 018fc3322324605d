"""Calibration: a suite's stages in, short measurements of each kind on this machine, the cost of every stage out."""
