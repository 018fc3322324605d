"""Measured costs come in; bounds, a simulated run and a scaling plan go out."""
