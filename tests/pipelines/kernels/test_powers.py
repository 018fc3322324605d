"""Powers in compiled loops against NumPy's in float64."""

import numpy as np
import pytest

from pipelines.kernels.compiled import compiled
from pipelines.kernels.powers import power


@compiled
def raised(bases, exponent, log2_factor):
    out = np.empty_like(bases)
    for index in range(len(bases)):
        out[index] = power(bases[index], exponent, log2_factor)
    return out


BASES = np.concatenate([np.geomspace(1e-6, 1, 1001), np.linspace(0, 1, 1001), [0.0, 1.0, 1e-30]]).astype(np.float32)


@pytest.mark.parametrize("exponent", [0.001, 0.25, 1.0, 2.4, 4.0])
@pytest.mark.parametrize("factor", [0.1, 1.0, 1.4])
def test_a_power_is_that_of_numpy(exponent, factor):
    found = raised(BASES, np.float32(exponent), np.float32(np.log2(factor)))
    expected = factor * BASES.astype(np.float64) ** exponent
    # What a float32 holds of the logarithm of a small number adds to the polynomials' error.
    allowed = 2e-6 * exponent + 1e-6 + np.finfo(np.float32).eps * exponent * abs(np.log2(np.maximum(BASES, 1e-30)))
    assert (abs(found - expected) <= allowed * expected + 1e-30).all()


def test_the_ends_are_exact():
    assert raised(np.float32([0, 1]), np.float32(0.01), np.float32(0)).tolist() == [0, 1]


def test_a_number_has_the_same_power_wherever_it_stands():
    bases = np.random.default_rng(0).random(100).astype(np.float32)
    together = raised(bases, np.float32(0.7), np.float32(0.1))
    alone = [raised(bases[[index]], np.float32(0.7), np.float32(0.1))[0] for index in range(100)]
    assert together.tolist() == alone
