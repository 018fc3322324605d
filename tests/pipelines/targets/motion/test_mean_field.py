"""Ties and sweeps against loops over pairs of nodes on a small grid."""

import itertools

import numpy as np
import pytest

from pipelines.targets.motion.mean_field import (
    DAMPING,
    MARGIN,
    MIN_CONTRAST,
    _opinion,
    neighbour_ties,
    opinion_grid,
    smooth_odds,
)

HEIGHT, WIDTH, SMOOTHNESS = 5, 6, 2.0


def colors() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)


def slow_tie(lab: np.ndarray, one: tuple[int, int], other: tuple[int, int]) -> float:
    """By definition, for two nodes within reach of each other."""
    right = np.square(np.diff(lab, axis=1)[:-1]).sum()
    down = np.square(np.diff(lab, axis=0)[:, :-1]).sum()
    contrast = max((right + down) / ((HEIGHT - 1) * (WIDTH - 1)), MIN_CONTRAST)
    distance = np.hypot(one[0] - other[0], one[1] - other[1])
    return SMOOTHNESS * 8 / 24 / distance * (1 + np.square(lab[one] - lab[other]).sum() / contrast / 8) ** -8


def slow_sweeps(odds: np.ndarray, lab: np.ndarray, num_sweeps: int) -> np.ndarray:
    nodes = list(itertools.product(range(HEIGHT), range(WIDTH)))
    opinion = np.tanh(odds.astype(float) / 2)
    for _ in range(num_sweeps):
        result = odds.astype(float).copy()
        for one, other in itertools.permutations(nodes, 2):
            if max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= MARGIN:
                result[one] += slow_tie(lab, one, other) * opinion[other]
        opinion += DAMPING * (np.array([_opinion(np.float32(v)) for v in result.ravel()]).reshape(odds.shape) - opinion)
    return result


@pytest.mark.parametrize("num_sweeps", [1, 3])
def test_sweeps_are_those_of_a_loop_over_pairs(num_sweeps):
    odds = np.random.default_rng(1).normal(0, 2, (HEIGHT, WIDTH)).astype(np.float32)
    lab = colors()
    found = smooth_odds(odds, neighbour_ties(lab, SMOOTHNESS), opinion_grid(odds), num_sweeps)
    np.testing.assert_allclose(found, slow_sweeps(odds, lab, num_sweeps), atol=1e-4)


def test_nodes_of_one_color_agree_and_edges_part_them():
    lab = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    lab[:, 3:] = 200
    odds = np.full((HEIGHT, WIDTH), -0.5, np.float32)
    odds[:, 3:] = 0.5
    odds[2, 1], odds[2, 4] = 0.4, -0.4  # one node of another mind on each side
    found = smooth_odds(odds, neighbour_ties(lab, SMOOTHNESS), opinion_grid(odds), 8)
    assert (found[:, :3] < 0).all()
    assert (found[:, 3:] > 0).all()


def test_the_fraction_is_near_tanh():
    values = np.linspace(-9, 9, 200).astype(np.float32)
    found = np.array([_opinion(value) for value in values])
    np.testing.assert_allclose(found, np.tanh(values / 2), atol=0.03)
    assert np.abs(found).max() <= 1


def test_opinions_have_a_margin_of_none():
    found = opinion_grid(np.array([[2.0, -2.0]], np.float32))
    assert found.shape == (1 + 2 * MARGIN, 2 + 2 * MARGIN)
    assert np.count_nonzero(found) == 2
    assert found[MARGIN, MARGIN] == pytest.approx(np.tanh(1.0))
