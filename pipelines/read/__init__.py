"""Tables of samples come in; which sample is read when, and its encoded bytes, go out.

Order is a pure function of seed and position, computed in integers.
"""
