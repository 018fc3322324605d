"""Effective rank in closed form, and neighbours against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from training.diagnostics.features import effective_rank, nearest_neighbour_accuracy, watched_features


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_features_of_equal_directions_have_their_number_as_rank(rank: int) -> None:
    features = torch.zeros(20, 8)
    features[:rank, :rank] = 5 * torch.eye(rank)
    assert effective_rank(features) == pytest.approx(rank, rel=1e-4)


def test_two_directions_of_which_one_is_small_have_a_rank_between() -> None:
    share = np.array([0.9, 0.1])
    features = torch.diag(torch.tensor([9.0, 1.0]))
    assert effective_rank(features) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


@pytest.mark.parametrize("num_train", [12, 60])
def test_neighbours_are_scikit_learns(num_train: int) -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(num_train, 6)), rng.normal(size=(40, 6))
    labels, test_labels = rng.integers(0, 4, num_train), rng.integers(0, 4, 40)
    reference = KNeighborsClassifier(
        n_neighbors=min(20, num_train),
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / 0.07),
    ).fit(train, labels)
    found = nearest_neighbour_accuracy(*(torch.tensor(one) for one in (train, labels, test, test_labels)))
    assert found == pytest.approx(reference.score(test, test_labels), abs=1e-6)


def test_features_are_the_means_of_the_last_map() -> None:
    from training.heads import HeadsConfig
    from training.model import build_model, build_trunk
    from training.trunk import TrunkConfig

    model = build_model(build_trunk(TrunkConfig(depth=10, width=0.125), (), 0), HeadsConfig(), {}, seed=0).eval()
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with watched_features(model) as found, torch.no_grad():
        last = model.trunk(images).last
    model.trunk(images)  # no longer watched
    assert len(found) == 1
    torch.testing.assert_close(found[0], last.mean((2, 3)))
