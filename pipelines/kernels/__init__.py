"""Numba: the decorator that compiles and caches a loop, and arithmetic that compiled loops share.

NumPy arrays come in and go out; compiled loops create no Python objects.
"""
