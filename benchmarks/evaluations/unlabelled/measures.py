"""Measures of features without labels: arrays in, numbers out. All in float64.

Letters: N images, D and E features.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["alignment", "effective_rank", "linear_cka", "retrieval_pct", "uniformity", "unit_rows"]

Floats = npt.NDArray[np.float64]


def effective_rank(features_ND: Floats) -> float:
    """Return RankMe: the exponential of the entropy of the singular values, from 1 to min(N, D) (Garrido et al., 2023).

    Not centred, as in the paper.
    """
    # Of the smaller of both products, whose eigenvalues are the squares of the singular values.
    is_wide = len(features_ND) < features_ND.shape[1]
    gram = features_ND @ features_ND.T if is_wide else features_ND.T @ features_ND
    singular = np.sqrt(np.linalg.eigvalsh(gram).clip(0.0))
    shares = singular / max(singular.sum(), 1e-300)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def unit_rows(features_ND: Floats) -> Floats:
    """Return rows of length 1; a row of zeros stays as it is."""
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    rows: Floats = np.divide(features_ND, length_N1, out=np.zeros_like(features_ND), where=length_N1 > 0)
    return rows


def alignment(first_ND: Floats, second_ND: Floats) -> float:
    """Return the mean squared distance of two views of an image, rows of length 1: 0 is perfect (Wang, Isola, 2020)."""
    return float(np.square(first_ND - second_ND).sum(axis=1).mean())


def uniformity(features_ND: Floats) -> float:
    """Return log of the mean of exp(-2 d^2) over all pairs of rows of length 1: lower is more uniform (same paper)."""
    cosines = features_ND @ features_ND.T
    pairs = np.triu_indices(len(features_ND), k=1)
    return float(np.log(np.exp(-2 * (2 - 2 * cosines[pairs])).mean()))


def linear_cka(first_ND: Floats, second_NE: Floats) -> float:
    """Return linear CKA of features of the same images, 0 to 1 (Kornblith et al., 2019). NaN where one is constant."""
    first, second = first_ND - first_ND.mean(axis=0), second_NE - second_NE.mean(axis=0)
    cross = np.square(first.T @ second).sum()
    own = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    return float(cross / own) if own > 0 else float("nan")


def retrieval_pct(queries_ND: Floats, others_ND: Floats) -> float:
    """Return how many rows (%) find the row of the same number as the nearest by cosine, with ties as misses."""
    cosines = queries_ND @ others_ND.T
    own = np.diag(cosines)[:, None]
    return 100.0 * float(((cosines >= own).sum(axis=1) == 1).mean())
