"""Decoding: encoded bytes and boxes come in, uint8 RGB canvases or clips go out.

`opencv` runs everywhere; `dali` is for GPUs and also runs on the CPU. Only choice.py knows both.
"""
