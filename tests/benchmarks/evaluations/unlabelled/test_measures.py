import numpy as np
import pytest

from benchmarks.evaluations.unlabelled.measures import (
    alignment,
    effective_rank,
    linear_cka,
    retrieval_pct,
    uniformity,
    unit_rows,
)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_effective_rank_equals_the_formula_on_singular_values(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape)
    singular = np.linalg.svd(features, compute_uv=False)
    shares = singular / singular.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.outer(np.arange(1.0, 6), np.arange(1.0, 4))) == pytest.approx(1, abs=1e-4)


def test_alignment_and_uniformity_equal_loops_over_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = unit_rows(rng.normal(size=(9, 4))), unit_rows(rng.normal(size=(9, 4)))
    distances = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(first, second, strict=True)]
    assert alignment(first, second) == pytest.approx(sum(distances) / 9)
    terms = [np.exp(-2 * ((first[i] - first[j]) ** 2).sum()) for i in range(9) for j in range(i)]
    assert uniformity(first) == pytest.approx(np.log(np.mean(terms)))


def test_cka_equals_hsic_of_centred_kernels() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20, 5)), rng.normal(size=(20, 8))
    centre = np.eye(20) - 1 / 20
    kernels = [centre @ (one @ one.T) @ centre for one in (first, second)]
    expected = (kernels[0] * kernels[1]).sum() / np.sqrt((kernels[0] ** 2).sum() * (kernels[1] ** 2).sum())
    assert linear_cka(first, second) == pytest.approx(expected)


def test_cka_ignores_rotation_scale_and_shift_and_knows_no_constant() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 5))
    turned = 3 * features @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 7
    assert linear_cka(features, turned) == pytest.approx(1)
    assert np.isnan(linear_cka(features, np.ones((20, 2))))


def test_retrieval_counts_the_nearest_and_no_ties() -> None:
    others = np.eye(4)
    assert retrieval_pct(others[[0, 1, 3, 3]], others) == 75
    assert retrieval_pct(np.ones((3, 2)), np.ones((3, 2))) == 0
