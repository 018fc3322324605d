"""Eigenvalues and eigenvectors of symmetric 3 x 3 matrices in closed form, for all of a batch at once.

`torch.linalg.eigh` asks a GPU with every batch whether it failed, and the host waits for the answer. Here every step is
arithmetic on the device. Order of the steps from Eberly, A Robust Eigensolver for 3 x 3 Symmetric Matrices (2014): the
eigenvalue that lies farthest from the others first, the other two in the plane across its vector, so that equal
eigenvalues still give orthonormal vectors.

Letters: N matrices.
"""

import torch

__all__ = ["eigh_3x3"]

TINY = 1e-300


def eigh_3x3(matrices_N33: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues (N, 3), ascending, and eigenvectors as columns (N, 3, 3), float64, of symmetric matrices."""
    # 1. Shifted and scaled, so that eigenvalues are three cosines a third of a turn apart.
    given = matrices_N33.double()
    scale = given.abs().amax((1, 2), keepdim=True).clamp_min(TINY)
    matrices = given / scale
    identity = torch.eye(3, dtype=torch.float64, device=given.device)
    mean = matrices.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    off = matrices - mean * identity
    off = off / (off.square().sum((1, 2), keepdim=True) / 6).sqrt().clamp_min(TINY)
    half = (_determinant(off) / 2).clamp(-1, 1)
    turn = torch.acos(half.abs()) / 3
    # 2. The one that stands alone: the largest, or the least where the determinant is negative.
    is_largest = half >= 0
    alone = 2 * torch.cos(turn) * torch.where(is_largest, 1.0, -1.0)
    axis = _null_vector(off - alone[:, None, None] * identity)
    # 3. The others: a rotation in the plane across that vector.
    one = _across(axis)
    other = torch.linalg.cross(axis, one)
    image_one, image_other = (_times(off, vector) for vector in (one, other))
    straight, mixed = (one * image_one).sum(1) - (other * image_other).sum(1), (one * image_other).sum(1)
    angle = 0.5 * torch.atan2(2 * mixed, straight)
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    larger, smaller = cos * one + sin * other, cos * other - sin * one
    # 4. In ascending order; values from the vectors, which is as exact as the vectors are.
    last = is_largest[:, None]
    columns = (torch.where(last, smaller, axis), torch.where(last, larger, smaller), torch.where(last, axis, larger))
    vectors = torch.stack(columns, dim=2)
    values = (vectors * (given @ vectors)).sum(1)
    return values, vectors


def _determinant(matrices: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = (matrices[:, 0] * torch.linalg.cross(matrices[:, 1], matrices[:, 2])).sum(1)
    return result


def _times(matrices: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return (matrices * vectors[:, None]).sum(2)


def _null_vector(matrices: torch.Tensor) -> torch.Tensor:
    """Return the unit vector (N, 3) that is across all rows: the longest product of two of them."""
    rows = matrices.unbind(1)
    products = torch.stack([torch.linalg.cross(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))], dim=1)
    longest = products.square().sum(2).argmax(1)
    found = products.gather(1, longest[:, None, None].expand(-1, 1, 3))[:, 0]
    result: torch.Tensor = found / found.norm(dim=1, keepdim=True).clamp_min(TINY)
    return result


def _across(axis: torch.Tensor) -> torch.Tensor:
    """Return a unit vector (N, 3) across each axis; without its smaller part of x and y, so that it is never 0."""
    x, y, z = axis.unbind(1)
    nothing = torch.zeros_like(x)
    with_x = (x.abs() > y.abs())[:, None]
    vector = torch.where(with_x, torch.stack([-z, nothing, x], 1), torch.stack([nothing, z, -y], 1))
    result: torch.Tensor = vector / vector.norm(dim=1, keepdim=True)
    return result
