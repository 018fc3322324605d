"""What Numba compiles: the decorator that compiles and caches a loop, and arithmetic that loops share.

NumPy arrays come in and go out; nothing here allocates Python objects.
"""
