"""Decoding: encoded bytes and boxes come in, uint8 RGB canvases or clips go out.

Backend `opencv` runs everywhere; `dali` is for GPUs and also runs on CPUs. Only choice.py imports both.
"""
