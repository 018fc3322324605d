"""Patches and views: a canvas and drawn geometry come in; warped, recolored, guarded patches go out."""
