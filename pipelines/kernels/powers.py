"""Powers of numbers from 0 to 1 for compiled loops, in arithmetic that runs in vectors (SIMD).

A float is split into exponent and mantissa (IEEE 754). What is left is the logarithm of a number from 1 to 2 and the
exponential of one from 0 to 1: a minimax polynomial each, with largest errors of 2e-6 and 1e-7. The C library's `pow`
works on one number at a time.
"""

import numpy as np

from pipelines.kernels.compiled import compiled

__all__ = ["power"]

MANTISSA_BITS = 23
MANTISSA = 0x7FFFFF
BIAS = 127
LEAST_EXPONENT = -126.0


@compiled
def power(base: np.float32, exponent: np.float32, log2_factor: np.float32) -> np.float32:
    """Return 2**log2_factor * base**exponent, for a base from 0 to 1 and an exponent above 0.

    The relative error is below 2e-6 for each unit of the exponent, plus 1e-6.
    """
    # The factor goes into the exponent: a multiplication less. A base of 0 has no logarithm, and is picked at the end,
    # because a branch before it would stop the loop from running in vectors.
    result = _exp2(exponent * _log2(base) + log2_factor)
    return result if base > np.float32(0) else np.float32(0)


@compiled
def _log2(number: np.float32) -> np.float32:
    """Return the base-2 logarithm of a number above 0."""
    bits = np.float32(number).view(np.int32)
    whole = np.float32((bits >> np.int32(MANTISSA_BITS)) - np.int32(BIAS))
    one_to_two: np.float32 = np.int32((bits & np.int32(MANTISSA)) | np.int32(BIAS << MANTISSA_BITS)).view(np.float32)
    x = one_to_two - np.float32(1)
    total = np.float32(-0.026456505) * x + np.float32(0.12344871)
    total = total * x + np.float32(-0.27953508)
    total = total * x + np.float32(0.4582693)
    total = total * x + np.float32(-0.71828157)
    total = total * x + np.float32(1.4425532)
    return whole + total * x


@compiled
def _exp2(number: np.float32) -> np.float32:
    """Return 2 to the power of a number below 128; numbers below -126 count as -126."""
    # Smaller exponents do not fit into a normal float: their bits would be read as another number.
    number = number if number > np.float32(LEAST_EXPONENT) else np.float32(LEAST_EXPONENT)
    whole: np.float32 = np.floor(number)
    x = number - whole
    total = np.float32(0.0018852985) * x + np.float32(0.008973376)
    total = total * x + np.float32(0.05583593)
    total = total * x + np.float32(0.24015281)
    total = total * x + np.float32(0.6931525)
    total = total * x + np.float32(1)
    two_to_whole: np.float32 = np.int32((np.int32(whole) + np.int32(BIAS)) << np.int32(MANTISSA_BITS)).view(np.float32)
    return total * two_to_whole
