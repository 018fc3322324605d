import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.evaluations.fine_tuning.loop import (
    CHECKPOINT_NAME,
    FineTuneConfig,
    LearningCurve,
    fine_tune,
    lr_factor,
    rows_of_step,
)
from pipelines.base.errors import FourfoldError


class Stopped(Exception):
    pass


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))


def batch_of(step: int) -> torch.Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(step))


def train(net: nn.Module, folder: Path, config: FineTuneConfig, *, stop_at: int | None = None) -> LearningCurve:
    num_losses = 0

    def losses_of(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal num_losses
        num_losses += 1
        if num_losses == stop_at:
            raise Stopped
        # torch's own generator has a part in it, as in torchvision's detectors.
        return {"a": (net(batch) - batch[:, :, 2:-2, 2:-2]).square().mean(), "b": 0.01 * torch.rand(())}

    return fine_tune(net, batch_of, losses_of, config, label="made up", folder=folder, key="key")


@pytest.mark.parametrize("norm_statistics", ["estimated", "batch"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, norm_statistics: str) -> None:
    config = FineTuneConfig(steps=12, norm_statistics=norm_statistics, checkpoint_every_s=1e-9)
    whole, parts = model(), model()
    curve = train(whole, tmp_path / "whole", config)
    with pytest.raises(Stopped):
        train(parts, tmp_path / "parts", config, stop_at=20 if norm_statistics == "estimated" else 8)
    assert (tmp_path / "parts" / CHECKPOINT_NAME).is_file()
    restarted = model()
    assert train(restarted, tmp_path / "parts", config).loss == curve.loss
    for one, other in zip(whole.state_dict().values(), restarted.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert curve.loss[-1] < curve.loss[0]


def test_checkpoint_of_other_options_is_not_used(tmp_path: Path) -> None:
    config = FineTuneConfig(steps=4)
    train(model(), tmp_path, config)
    other, seen = model(), list[int]()

    def counted(step: int) -> torch.Tensor:
        seen.append(step)
        return batch_of(step)

    options = FineTuneConfig(steps=4, norm_statistics="batch")
    fine_tune(other, counted, lambda b: {"a": other(b).mean()}, options, label="x", folder=tmp_path, key="other")
    assert seen == [0, 1, 2, 3]
    fine_tune(other, counted, lambda b: {"a": other(b).mean()}, options, label="x", folder=tmp_path, key="other")
    assert seen == [0, 1, 2, 3]  # finished: nothing is read again


def test_a_loss_that_is_not_finite_stops_with_the_learning_rate(tmp_path: Path) -> None:
    net = model()
    with pytest.raises(FourfoldError, match=r"made up: the loss is nan at step 1; .*Lower lr, now 0\.5"):
        fine_tune(
            net,
            batch_of,
            lambda batch: {"a": net(batch).mean() * math.nan},
            FineTuneConfig(steps=3, lr=0.5),
            label="made up",
            folder=tmp_path,
            key="key",
        )


def test_statistics_stay_as_estimated_or_follow_the_batches(tmp_path: Path) -> None:
    estimated, batch = model(), model()
    train(estimated, tmp_path / "a", FineTuneConfig(steps=4, lr=1e-9))
    first_conv = [estimated[0](batch_of(step)) for step in range(4)]
    mean = torch.stack([x.mean((0, 2, 3)) for x in first_conv]).mean(0)
    torch.testing.assert_close(estimated[1].running_mean, mean, rtol=1e-3, atol=1e-4)
    train(batch, tmp_path / "b", FineTuneConfig(steps=4, lr=1e-9, norm_statistics="batch"))
    assert not torch.allclose(batch[1].running_mean, mean, rtol=1e-2)


def test_every_image_is_used_once_per_epoch() -> None:
    config = FineTuneConfig(batch_size=4)
    rows = [row for step in range(5) for row in rows_of_step(step, 10, config)]
    assert Counter(rows[:10]) == Counter(rows[10:]) == Counter(range(10))
    assert rows[:10] != rows[10:]
    assert rows_of_step(0, 10, FineTuneConfig(batch_size=4, seed=1)) != rows[:4]


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("step", 0, 0.02),
        ("step", 49, 1),
        ("step", 699, 1),
        ("step", 700, 0.1),
        ("step", 900, 0.01),
        ("cosine", 500, 0.5),
    ],
)
def test_learning_rate(schedule: str, step: int, factor: float) -> None:
    assert lr_factor(step, FineTuneConfig(steps=1000, schedule=schedule)) == pytest.approx(factor)
