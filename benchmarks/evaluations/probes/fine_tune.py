"""Fine-tuning: accuracy after training trunk and classifier together, on 1, 10 and 100 % of the train split's labels.

A fresh classifier on the mean-pooled last map (batch norm and ReLU before it), SGD with momentum and a cosine schedule
over a fixed number of samples, random crops and mirroring. The settings are the same for every trunk and share of
labels; the test split is scored once, at the end.

Letters: B batch, N images.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import nn
from torch.nn import functional

from benchmarks.evaluations.base import Context, Evaluation, Int64s, Results, check_labelled, draw_labelled, score
from benchmarks.evaluations.features.extract import image_inputs
from benchmarks.evaluations.trunk_source import best_device
from pipelines.base.config import Config
from pipelines.base.rng import rng_for
from pipelines.run.canvases import Cut, EvaluationBatch, canvases_at
from pipelines.shards.format.manifest import SampleTable, load_manifest
from training.parallel import cpu_threads
from training.trunk import Trunk

__all__ = ["EVALUATION", "FineTuneConfig", "labelled_rows", "run"]


class FineTuneConfig(Config):
    """Options of fine-tuning."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square the trunk sees; cost grows with its square. A suite takes the pretraining's if not given."""
    labels_pct: list[float] = Field(default_factory=lambda: [1.0, 10.0, 100.0], min_length=1)
    """Shares of the labels of every class, at least one label each; every share costs a training."""
    num_samples: int = Field(default=50_000, ge=1)
    """Images trained on per share, repeats counted; the cost of each is three forward passes."""
    batch_size: int = Field(default=64, ge=2)
    """Images a step; the learning rate grows with it (`lr` is for 64)."""
    lr: float = Field(default=0.02, gt=0.0)
    """Highest learning rate, of the trunk; a tenth of the steps lead up to it, then it falls as a cosine."""
    head_lr_scale: float = Field(default=10.0, gt=0.0)
    """Learning rate of the fresh classifier, relative to the trunk's."""
    weight_decay: float = Field(default=1e-4, ge=0.0)
    """Of all weights."""
    crop_scale: tuple[float, float] = (0.35, 1.0)
    """Area of a training crop as a share of the largest square; smaller regularises more."""
    seed: int = Field(default=0, ge=0)
    """Seed of labels, crops, order and classifier: the same for every trunk."""

    @field_validator("labels_pct")
    @classmethod
    def _is_a_share(cls, value: list[float]) -> list[float]:
        if min(value) <= 0 or max(value) > 100:
            raise ValueError("need percentages above 0 and up to 100")
        return value


class _Classifier(nn.Module):
    def __init__(self, trunk: Trunk, num_classes: int) -> None:
        super().__init__()
        self.trunk, self.norm = trunk, nn.BatchNorm2d(trunk.num_channels)
        self.layer = nn.Linear(trunk.num_channels, num_classes)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        # The trunk ends before a norm and a ReLU (pre-activation); both belong to whoever reads it.
        map_BCHW = functional.relu(self.norm(self.trunk(image_BCHW).last))
        answers: torch.Tensor = self.layer(map_BCHW.mean(dim=(2, 3)))
        return answers


def run(context: Context, config: FineTuneConfig) -> Results:
    """Return top1_100_percent_pct and so on, by share of labels, with the number of labels and the seconds of each."""
    table = load_manifest(context.the_images()).select("image", context.train_split)
    labels_N = table.label.astype(np.int64)
    results: Results = {}
    for share in config.labels_pct:
        start_s = time.monotonic()
        rows = labelled_rows(labels_N, share, config.seed)
        with cpu_threads(0):
            model = _trained(context, config, table, rows, int(labels_N.max()) + 1)
            scores = _scored(model, context, config)
        name = f"{share:g}".replace(".", "p")
        results |= {key.replace("_pct", f"_{name}_percent_pct"): value for key, value in scores.items()}
        results[f"num_labels_{name}_percent"] = len(rows)
        results[f"seconds_{name}_percent"] = time.monotonic() - start_s
    return results


def labelled_rows(labels_N: Int64s, share_pct: float, seed: int) -> Int64s:
    """Return the sorted rows of a share of every class, rounded, at least 1 each; the same for every trunk."""
    if share_pct == 100:
        return np.arange(len(labels_N))
    chosen = []
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        count = max(1, round(len(rows) * share_pct / 100))
        chosen.append(rows[draw_labelled(np.full(len(rows), label), count, seed)])
    return np.sort(np.concatenate(chosen))


def _trained(
    context: Context, config: FineTuneConfig, table: SampleTable, rows: Int64s, num_classes: int
) -> _Classifier:
    # 1. The classifier's weights follow from the seed alone; other random numbers of torch stay as they were.
    device = best_device()
    trunk = context.the_trunk().load(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _Classifier(trunk, num_classes).to(device)
    model.train().to(memory_format=torch.channels_last)
    # 2. One group for the pretrained weights, one for the fresh ones, which have further to go.
    rate = config.lr * config.batch_size / 64
    fresh = [*model.norm.parameters(), *model.layer.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": list(trunk.parameters())},
        {"params": fresh, "lr": rate * config.head_lr_scale},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    num_steps = max(1, config.num_samples // config.batch_size)
    peak = max(1, num_steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (step + 1) / peak if step < peak else 0.5 * (1 + np.cos(np.pi * (step - peak) / max(1, num_steps - peak)))
        ),
    )
    # 3. The training itself.
    for batch in _batches(table, rows, config, num_steps):
        inputs = batch.pixels.to(device).permute(0, 3, 1, 2).float() / 255
        loss = functional.cross_entropy(model(inputs), batch.labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return model.eval()


def _batches(table: SampleTable, rows: Int64s, config: FineTuneConfig, num_steps: int) -> Iterator[EvaluationBatch]:
    """Yield random crops of the labelled rows, all of them once before any comes again."""

    def cuts() -> Iterator[Cut]:
        waiting = np.empty(0, dtype=np.int64)
        for step in range(num_steps):
            rng = rng_for(config.seed, step, "batch", "fine_tune")
            while len(waiting) < config.batch_size:
                waiting = np.concatenate([waiting, rng.permutation(rows)])
            chosen, waiting = waiting[: config.batch_size], waiting[config.batch_size :]
            yield Cut(
                rows=chosen,
                boxes=_boxes(table.width[chosen], table.height[chosen], config.crop_scale, rng),
                flips=rng.random(len(chosen)) < 0.5,
            )

    return canvases_at(table, cuts(), canvas_px=config.canvas_px)


def _boxes(
    width_B: Int64s, height_B: Int64s, scale: tuple[float, float], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Return a random square of each image, int32 (B, 4)."""
    least_B = np.minimum(width_B, height_B)
    side_B = np.maximum(1, np.round(least_B * rng.uniform(*scale, len(width_B)) ** 0.5)).astype(np.int64)
    x0_B = np.floor(rng.random(len(width_B)) * (width_B - side_B + 1)).astype(np.int64)
    y0_B = np.floor(rng.random(len(width_B)) * (height_B - side_B + 1)).astype(np.int64)
    return np.stack([x0_B, y0_B, x0_B + side_B, y0_B + side_B], axis=1).astype(np.int32)


@torch.no_grad()
def _scored(model: _Classifier, context: Context, config: FineTuneConfig) -> dict[str, float]:
    images, split, device = context.the_images(), context.test_split, next(model.parameters()).device
    sizes = {"canvas_px": config.canvas_px, "batch_size": config.batch_size}
    answers = [model(inputs).cpu().numpy() for inputs in image_inputs(images, split, **sizes, device=device)]
    labels_N = load_manifest(images).select("image", split).label.astype(np.int64)
    return score(np.concatenate(answers), labels_N)


EVALUATION = Evaluation(config_class=FineTuneConfig, run=run, check=check_labelled, metric="top1_100_percent_pct")
