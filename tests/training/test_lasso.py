"""The mix of trunk units: its norm, its penalty, and what it mixes."""

import numpy as np
import pytest
import torch

from training.lasso import Lasso


def test_all_units_count_alike_at_the_start() -> None:
    np.testing.assert_allclose(Lasso(4).weights().detach(), [0.5] * 4)


def test_the_mix_is_the_weighted_sum() -> None:
    lasso = Lasso(2)
    lasso.direction.data = torch.tensor([3.0, -4.0])
    units = [torch.full((1, 2, 3, 3), 10.0), torch.full((1, 2, 3, 3), 1.0)]
    # 0.6 * 10 - 0.8 * 1
    torch.testing.assert_close(lasso.mix(units), torch.full((1, 2, 3, 3), 5.2))


@pytest.mark.parametrize("lr", [0.1, 10.0])
def test_any_step_keeps_the_unit_norm(lr: float) -> None:
    lasso = Lasso(6)
    optimizer = torch.optim.RMSprop(lasso.parameters(), lr=lr)
    for step in range(5):
        (lasso.weights() * torch.arange(6.0).roll(step)).sum().backward()
        optimizer.step()
        assert lasso.weights().square().sum().item() == pytest.approx(1.0, rel=1e-5)


def test_the_penalty_is_the_l1_norm_of_the_weights() -> None:
    lasso = Lasso(2)
    lasso.direction.data = torch.tensor([3.0, -4.0])
    assert lasso.l1().item() == pytest.approx(1.4)


def test_the_penalty_drives_towards_one_unit() -> None:
    lasso = Lasso(3)
    lasso.direction.data = torch.tensor([1.0, 0.9, 0.8])
    optimizer = torch.optim.SGD(lasso.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        lasso.l1().backward()
        optimizer.step()
    np.testing.assert_allclose(lasso.weights().detach().abs(), [1, 0, 0], atol=0.1)


def test_the_mix_keeps_the_dtype_of_the_units() -> None:
    assert Lasso(1).mix([torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)]).dtype == torch.bfloat16


def test_one_unit_is_passed_on_unchanged() -> None:
    unit = torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(Lasso(1).mix([unit]), unit)


def test_a_missing_unit_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        Lasso(2).mix([torch.rand(1, 1, 2, 2)])
