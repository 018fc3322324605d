"""Thin command line adapters: each reads its options, calls one function of the packages, and prints what it returns.

Torch, OpenCV and the other heavy imports happen inside the commands, so that `fourfold --help` answers at once.
"""
