"""PCGrad against a slow NumPy version of its paper's algorithm."""

import numpy as np
import pytest
import torch

from training.updates.balance import without_conflicts


def projected(gradients: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(seed), {}
    for task in gradients:
        g = gradients[task].copy()
        for other in rng.permutation([name for name in gradients if name != task]):
            h = gradients[other]
            if g @ h < 0:
                g -= (g @ h) / (h @ h) * h
        found[task] = g
    return found


@pytest.mark.parametrize("seed", range(5))
def test_three_tasks_as_in_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients = {task: rng.normal(size=4) for task in "abc"}
    tensors = {task: torch.tensor(gradient) for task, gradient in gradients.items()}
    found = without_conflicts(tensors, np.random.default_rng(seed))
    for task, expected in projected(gradients, seed).items():
        np.testing.assert_allclose(found[task].numpy(), expected, rtol=1e-10)


def test_two_tasks_no_longer_oppose_each_other() -> None:
    gradients = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([-1.0, 1.0])}
    found = without_conflicts(gradients, np.random.default_rng(0))
    assert found["a"].tolist() == [0.5, 0.5]
    assert found["b"].tolist() == [0.0, 1.0]


def test_one_task_and_a_gradient_of_zeros_are_left_as_they_are() -> None:
    one = {"a": torch.tensor([1.0, -2.0])}
    assert without_conflicts(one, np.random.default_rng(0))["a"].tolist() == [1.0, -2.0]
    with_zeros = one | {"b": torch.zeros(2)}
    assert without_conflicts(with_zeros, np.random.default_rng(0))["a"].tolist() == [1.0, -2.0]
