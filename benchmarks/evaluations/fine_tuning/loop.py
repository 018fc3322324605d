"""Fine-tuning loop: a model, batches by step number and a loss come in; trained weights and a learning curve go out.

Everything random in a step follows from (seed, step), so a run that resumes at a checkpoint ends with the same weights
as one that was never stopped. (Not to the bit on a GPU: torchvision's RoIAlign adds in any order there.)
"""

import math
import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from benchmarks.evaluations.fine_tuning.features import estimate_norms, freeze_norms
from pipelines.base.atomic import atomic_file
from pipelines.base.config import Config
from pipelines.base.errors import FourfoldError
from pipelines.base.progress import progress_bar
from pipelines.base.rng import rng_for

__all__ = ["CHECKPOINT_NAME", "FineTuneConfig", "LearningCurve", "fine_tune", "lr_factor", "rows_of_step"]

CHECKPOINT_NAME = "fine_tuning.pt"
NORM_BATCHES = 20
CURVE_POINTS = 50

BatchT = TypeVar("BatchT")
Losses = Mapping[str, torch.Tensor]


class FineTuneConfig(Config):
    """Options of fine-tuning that depth and detection share."""

    steps: int = Field(default=2000, ge=1)
    """Steps of training; time grows with it."""
    batch_size: int = Field(default=8, ge=1)
    """Images per step; memory and time grow with it."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with momentum, as in the paper's evaluations; `adamw` learns more in few steps, with an lr near 0.001."""
    lr: float = Field(default=0.01, gt=0.0)
    """Highest learning rate. Too large ends in a loss that is not finite, which stops the run."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of SGD, and the first beta of AdamW."""
    weight_decay: float = Field(default=1e-4, ge=0.0)
    """Weight decay of all weights of two or more dimensions."""
    schedule: Literal["step", "cosine"] = "step"
    """After a linear warm-up over the first twentieth: `step` divides by 10 after 70 % and 90 % of the steps, `cosine`
    falls to 0."""
    clip_norm: float = Field(default=10.0, gt=0.0)
    """Gradients of a longer norm are shortened to it."""
    norm_statistics: Literal["estimated", "batch"] = "estimated"
    """Batch norm in training: `estimated` once on the train images and then constant, which small batches need, or
    those of each `batch`."""
    lasso: bool = False
    """Feed the heads a learned mix of all units of stage 3 instead of the last one."""
    lasso_l1: float = Field(default=1e-3, ge=0.0)
    """L1 penalty on the mix; larger gives fewer units."""
    seed: int = Field(default=0, ge=0)
    """Of new weights, order of images and augmentation. The same for every trunk, so that differences are paired."""
    checkpoint_every_s: float = Field(default=300.0, gt=0.0)
    """A kill loses the work of so many seconds at most; smaller writes more often."""


@dataclass(slots=True)
class LearningCurve:
    """Mean losses of up to 50 equal parts of the training, and the seconds it took over all resumes."""

    seconds: float = 0.0
    loss: list[float] = field(default_factory=list)


def lr_factor(step: int, config: FineTuneConfig) -> float:
    """Return the factor of the learning rate, 0 to 1, at a step counted from 0."""
    warmup_steps = max(1, config.steps // 20)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done_ratio = step / config.steps
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done_ratio))
    return 1.0 if done_ratio < 0.7 else 0.1 if done_ratio < 0.9 else 0.01


def rows_of_step(step: int, num_images: int, config: FineTuneConfig) -> list[int]:
    """Return the images of a step: every image once per epoch, in an order that depends on seed and epoch only."""
    positions = range(step * config.batch_size, (step + 1) * config.batch_size)
    orders: dict[int, Any] = {}
    rows = []
    for epoch, place in (divmod(position, num_images) for position in positions):
        if epoch not in orders:
            orders[epoch] = rng_for(config.seed, epoch, "order", "fine_tuning").permutation(num_images)
        rows.append(int(orders[epoch][place]))
    return rows


def fine_tune(
    model: nn.Module,
    batch_of: Callable[[int], BatchT],
    losses_of: Callable[[BatchT], Losses],
    config: FineTuneConfig,
    *,
    label: str,
    folder: Path,
    key: str,
) -> LearningCurve:
    """Train all weights of `model` in place for `config.steps` steps on the sum of the losses.

    batch_of(step) is called in a thread of its own, one step ahead. `folder` keeps a checkpoint, which is used again
    only under the same `key`. Raises FourfoldError for a loss that is not finite.
    """
    place = folder / CHECKPOINT_NAME
    optimizer = _optimizer(model, config)
    # 1. A checkpoint replaces weights, statistics and the optimizer's state; without one, the statistics come first:
    # they decide the scale of every gradient.
    resumed = _read(place, key)
    if resumed is None:
        step, curve = 0, LearningCurve()
        if config.norm_statistics == "estimated":
            _estimate(model, batch_of, losses_of, config)
    else:
        model.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
        step, curve = resumed["step"], LearningCurve(seconds=resumed["seconds"], loss=resumed["loss"])
    model.train()
    freeze_norms(model, every=config.norm_statistics == "estimated")
    before_s, start_s = curve.seconds, time.monotonic()
    saved_s, part_losses = start_s, list[float]()
    with (
        ThreadPoolExecutor(1, "fourfold-batches") as pool,
        progress_bar(label, total=config.steps, unit="steps") as bar,
    ):
        bar.skip(step)
        coming = pool.submit(batch_of, step) if step < config.steps else None
        while step < config.steps:
            assert coming is not None
            batch = coming.result()
            # 2. The next batch is read while this one is computed on.
            if step + 1 < config.steps:
                coming = pool.submit(batch_of, step + 1)
            part_losses.append(_one_step(model, optimizer, losses_of, batch, step, config, label))
            step += 1
            bar.show(loss=part_losses[-1])
            bar.advance()
            # 3. A point of the curve at fixed steps, and saved only there: no checkpoint holds half a point.
            if step % max(1, config.steps // CURVE_POINTS) == 0 or step == config.steps:
                curve.loss.append(round(sum(part_losses) / len(part_losses), 5))
                curve.seconds, part_losses = before_s + time.monotonic() - start_s, []
                if time.monotonic() - saved_s >= config.checkpoint_every_s or step == config.steps:
                    _save(place, key, model, optimizer, step, curve)
                    saved_s = time.monotonic()
    model.eval()
    return curve


def _one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: Callable[[BatchT], Losses],
    batch: BatchT,
    step: int,
    config: FineTuneConfig,
    label: str,
) -> float:
    """Take one step and return its loss."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * lr_factor(step, config)
    optimizer.zero_grad(set_to_none=True)
    # 1. Torchvision draws scales and samples of boxes from torch's generator: it is set by the step.
    total = _total(losses_of, batch, step, config)
    loss = float(total.detach())
    # 2. Checked before the step: weights that are not finite could not be told from a damaged checkpoint.
    if not math.isfinite(loss):
        raise FourfoldError(
            f"{label}: the loss is {loss} at step {step + 1}; need a finite one. Lower lr, now {config.lr}."
        )
    total.backward()  # type: ignore[no-untyped-call]
    # 3. A single bad box can give a gradient that would end the training.
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return loss


def _total(losses_of: Callable[[BatchT], Losses], batch: BatchT, step: int, config: FineTuneConfig) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(int(rng_for(config.seed, step, "torch", "fine_tuning").integers(2**62)))
        return torch.stack([loss.reshape(()) for loss in losses_of(batch).values()]).sum()


def _optimizer(model: nn.Module, config: FineTuneConfig) -> torch.optim.Optimizer:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": config.weight_decay},
        # Biases, batch norm and the mix: decay would pull a scale of 1 to 0.
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def _estimate(
    model: nn.Module, batch_of: Callable[[int], BatchT], losses_of: Callable[[BatchT], Losses], config: FineTuneConfig
) -> None:
    num_batches = min(NORM_BATCHES, config.steps)
    estimate_norms(model, (_total(losses_of, batch_of(step), step, config) for step in range(num_batches)))


def _save(
    place: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, curve: LearningCurve
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "key": key,
        "step": step,
        "seconds": curve.seconds,
        "loss": curve.loss,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_file(place) as file:
        torch.save(content, file)


def _read(place: Path, key: str) -> dict[str, Any] | None:
    """Return the content of a checkpoint; None if there is none, or of other options, or damaged."""
    try:
        # weights_only: a checkpoint from elsewhere could otherwise run code when it is read.
        content: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True)
        return content if content["key"] == key else None
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError):
        return None
