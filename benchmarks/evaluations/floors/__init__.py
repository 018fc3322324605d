"""Floors: accuracy that needs no trunk. A trunk that is not above them has learned nothing useful."""
