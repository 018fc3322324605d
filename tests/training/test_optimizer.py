"""The optimizers against their formulas, and RMSProp's indifference to the scale of a loss."""

import numpy as np
import pytest
import torch

from training.optimizer import OptimizerConfig, build_optimizer, set_lr

START = [1.0, -2.0, 3.0]


def trained(config: OptimizerConfig, loss_scale: float, num_steps: int = 20) -> torch.Tensor:
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(config, [weights])
    for step in range(num_steps):
        optimizer.zero_grad()
        (loss_scale * (weights * torch.tensor([1.0, 2.0, 0.5])).sin().sum() * (1 + step % 3)).backward()
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
@pytest.mark.parametrize("loss_scale", [1e-2, 1e3])
def test_the_scale_of_a_loss_changes_nothing(name: str, loss_scale: float) -> None:
    config = OptimizerConfig.model_validate({"name": name, "lr": 0.01})
    # Not exact: eps is added to the root of the squared gradients.
    torch.testing.assert_close(trained(config, loss_scale), trained(config, 1.0), rtol=1e-4, atol=1e-5)


def test_rmsprop_is_its_formula() -> None:
    config = OptimizerConfig(lr=0.1, smoothing=0.9, momentum=0.5, eps=1e-6)
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(config, [weights])
    w, square, velocity = np.array(START), np.zeros(3), np.zeros(3)
    for _ in range(3):
        optimizer.zero_grad()
        weights.square().sum().backward()
        optimizer.step()
        gradient = 2 * w
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.5 * velocity + gradient / (np.sqrt(square) + 1e-6)
        w = w - 0.1 * velocity
    np.testing.assert_allclose(weights.detach(), w, rtol=1e-5)


def test_adamw_decays_weights_without_a_gradient() -> None:
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5), [weights])
    weights.grad = torch.zeros(3)
    optimizer.step()
    np.testing.assert_allclose(weights.detach(), np.array(START) * 0.95, rtol=1e-6)


def test_the_learning_rate_can_be_set() -> None:
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(OptimizerConfig(lr=0.1), [weights])
    set_lr(optimizer, 0.0)
    weights.grad = torch.ones(3)
    optimizer.step()
    assert weights.tolist() == START


@pytest.mark.parametrize("value", [{"lr": 0}, {"eps": 0}, {"momentum": 1}, {"smoothing": 1.5}, {"name": "sgd"}])
def test_impossible_values_are_refused(value) -> None:
    with pytest.raises(ValueError):
        OptimizerConfig.model_validate(value)
