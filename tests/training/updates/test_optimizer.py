"""The optimizers against their formulas, and RMSProp's indifference to the scale of a loss."""

import numpy as np
import pytest
import torch

from training.lasso import Lasso
from training.updates.optimizer import OptimizerConfig, build_optimizer, parameter_groups, set_lr

START = [1.0, -2.0, 3.0]


def trained(config: OptimizerConfig, loss_scale: float, num_steps: int = 20) -> torch.Tensor:
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(config, parameter_groups([weights], config.weight_decay))
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


def test_fused_adamw_is_adamw() -> None:
    plain, fused = (OptimizerConfig.model_validate({"name": "adamw", "fused": fused}) for fused in (False, True))
    torch.testing.assert_close(trained(plain, 1.0), trained(fused, 1.0), rtol=1e-5, atol=1e-6)
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    assert build_optimizer(fused, parameter_groups([parameter], 0.0)).defaults["fused"]
    with pytest.raises(ValueError, match="only adamw has a fused kernel"):
        OptimizerConfig.model_validate({"name": "rmsprop", "fused": True})


def test_rmsprop_is_its_formula() -> None:
    config = OptimizerConfig(lr=0.1, smoothing=0.9, momentum=0.5, eps=1e-6)
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(config, parameter_groups([weights], config.weight_decay))
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


def test_rmsprop_tf_is_its_formula() -> None:
    config = OptimizerConfig(name="rmsprop_tf", lr=0.1, smoothing=0.9, momentum=0.5, eps=1e-3)
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(config, parameter_groups([weights], 0.0))
    w, square, velocity = np.array(START), np.ones(3), np.zeros(3)
    for lr in (0.1, 0.1, 0.05):
        set_lr(optimizer, lr)
        optimizer.zero_grad()
        weights.square().sum().backward()
        optimizer.step()
        gradient = 2 * w
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.5 * velocity + lr * gradient / np.sqrt(square + 1e-3)
        w = w - velocity
    np.testing.assert_allclose(weights.detach(), w, rtol=1e-5)


def test_groups_take_their_share_of_the_learning_rate() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = parameter_groups(weights[:1], 0.0) + parameter_groups(weights[1:], 0.0, lr_scale=0.25)
    optimizer = build_optimizer(OptimizerConfig(), groups)
    set_lr(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups if group["params"]] == [0.4, 0.1]


def test_adamw_decays_weights_without_a_gradient() -> None:
    weights = torch.nn.Parameter(torch.tensor([START]))
    optimizer = build_optimizer(OptimizerConfig(name="adamw", lr=0.1), parameter_groups([weights], 0.5))
    weights.grad = torch.zeros(1, 3)
    optimizer.step()
    np.testing.assert_allclose(weights.detach(), np.array([START]) * 0.95, rtol=1e-6)


class Tiny(torch.nn.Module):
    """A kernel, a norm, a layer with bias, and the mix of two units: everything that a model trains, 1 each."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.nn.Conv2d(1, 1, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(1)
        self.linear = torch.nn.Linear(1, 1)
        self.lasso = Lasso(2)
        for parameter in self.parameters():
            torch.nn.init.ones_(parameter)


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        # adamw: w - lr decay w. rmsprop: the decay is the whole gradient g = 0.5, its average 0.01 g^2, so the step is
        # lr g / sqrt(0.01 g^2) = 10 lr.
        ("adamw", 1 - 0.01 * 0.5),
        ("rmsprop", 1 - 10 * 0.01),
    ],
)
def test_kernels_and_matrices_alone_decay(name: str, decayed: float) -> None:
    model = Tiny()
    config = OptimizerConfig.model_validate({"name": name, "lr": 0.01, "weight_decay": 0.5})
    optimizer = build_optimizer(config, parameter_groups(model.parameters(), config.weight_decay))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    found = {name: parameter.detach().flatten().tolist() for name, parameter in model.named_parameters()}
    assert found == {
        "kernel.weight": pytest.approx([decayed], rel=1e-6),
        "norm.weight": [1.0],
        "norm.bias": [1.0],
        "linear.weight": pytest.approx([decayed], rel=1e-6),
        "linear.bias": [1.0],
        "lasso.direction": [1.0, 1.0],
    }


@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
def test_every_parameter_is_in_one_group(name: str) -> None:
    model = Tiny()
    optimizer = build_optimizer(
        OptimizerConfig.model_validate({"name": name}), parameter_groups(model.parameters(), 0.1)
    )
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_the_learning_rate_can_be_set() -> None:
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer(OptimizerConfig(lr=0.1), parameter_groups([weights], 0.0))
    set_lr(optimizer, 0.0)
    weights.grad = torch.ones(3)
    optimizer.step()
    assert weights.tolist() == START


@pytest.mark.parametrize(
    "value", [{"clip_norm": 0}, {"lr": 0}, {"eps": 0}, {"momentum": 1}, {"smoothing": 1.5}, {"name": "sgd"}]
)
def test_impossible_values_are_refused(value) -> None:
    with pytest.raises(ValueError):
        OptimizerConfig.model_validate(value)
