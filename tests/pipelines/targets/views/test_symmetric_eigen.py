"""Against numpy.linalg.eigh, also where eigenvalues are equal, nearly equal, zero or far apart."""

import math

import numpy as np
import pytest
import torch

from pipelines.targets.views.symmetric_eigen import eigh_3x3


def rotations(count: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(0).normal(size=(count, 3, 3)))[0]


def with_values(*values: float, count: int = 50) -> np.ndarray:
    turned = rotations(count)
    return turned @ (np.array(values)[:, None] * turned.swapaxes(1, 2))


RANDOM = np.random.default_rng(1).normal(size=(500, 3, 3))
SETS = {
    "any": RANDOM + RANDOM.swapaxes(1, 2),
    "covariances of colors": np.einsum("nij,nkj->nik", RANDOM, RANDOM) * 1e6,
    "two equal, the lower ones": with_values(1, 1, 5),
    "two equal, the upper ones": with_values(-3, 2, 2),
    "all equal": with_values(4, 4, 4),
    "nearly equal": with_values(1, 1 + 1e-9, 1 + 2e-9),
    "gray: one color axis": with_values(0, 0, 7e5),
    "nothing": np.zeros((3, 3, 3)),
    "far apart": with_values(1e-6, 1.0, 1e6),
    "diagonal": np.stack([np.diag(row) for row in ([1, 2, 3], [3, 2, 1], [2, 2, 1], [0, 0, 1], [-1, 0, 1])]),
    "huge and tiny": np.concatenate([with_values(1, 2, 3) * 1e200, with_values(1, 2, 3) * 1e-200]),
}


@pytest.mark.parametrize("name", SETS)
def test_values_are_numpys_and_vectors_solve_the_equation(name):
    matrices = SETS[name]
    values, vectors = (one.numpy() for one in eigh_3x3(torch.from_numpy(matrices)))
    size = np.abs(matrices).max((1, 2), keepdims=True) + 1e-300
    expected = np.linalg.eigvalsh(matrices)
    np.testing.assert_allclose(values / size[..., 0], expected / size[..., 0], atol=1e-12)
    np.testing.assert_allclose(vectors.swapaxes(1, 2) @ vectors, np.broadcast_to(np.eye(3), matrices.shape), atol=1e-12)
    np.testing.assert_allclose(matrices @ vectors / size, vectors * values[:, None] / size, atol=1e-12)


def test_vectors_are_numpys_where_values_differ():
    matrices = SETS["any"][:100]
    _, vectors = eigh_3x3(torch.from_numpy(matrices).float())
    _, expected = np.linalg.eigh(matrices)
    likeness = np.abs((vectors.numpy() * expected).sum(1))
    gap = np.diff(np.linalg.eigvalsh(matrices), axis=1).min(1)
    assert math.isclose(likeness[gap > 0.05].min(), 1.0, abs_tol=1e-6)
