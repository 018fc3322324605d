"""Sample tables come in; the order of samples and their encoded bytes go out.

Order is a pure function of seed and position, computed in integers.
"""
