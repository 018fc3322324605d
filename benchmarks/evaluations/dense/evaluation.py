"""Dense probe: a linear layer on every cell of the frozen trunk's last map tells classes of pixels apart.

Not in the paper: the evaluation nearest to what motion segmentation should teach. Images are resized to `height_px` x
`width_px`. A cell of the map takes the label of most of its pixels. The layer is fitted exactly, by L-BFGS, on at most
`num_cells` cells drawn evenly over the train images, with the L2 penalty of the grid that is best on held-out images.
Test images are answered at every cell, resized to the mask's own size, and scored there by IoU.

Beside it stands `place`, the most frequent train label at each cell (balanced: the one most over its mean frequency):
what is known without looking.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn import functional as F

from benchmarks.evaluations.base import Context, Results
from benchmarks.evaluations.composites import COMPOSITES_NEED, is_composites
from benchmarks.evaluations.dense.composites import open_composite_masks
from benchmarks.evaluations.dense.davis import DAVIS_NEEDS, is_davis, open_davis
from benchmarks.evaluations.dense.iou import IGNORED, ConfusionMatrix
from benchmarks.evaluations.dense.masked_images import MaskedImage, MaskedSplit
from benchmarks.evaluations.dense.voc import VOC_MASKS_NEED, is_voc_masks, open_voc_masks
from benchmarks.evaluations.own_data import Layout, evaluation_of_own_data, open_data
from benchmarks.evaluations.probes.softmax import choose_l2
from pipelines.base.config import Config
from pipelines.base.errors import DataError
from pipelines.base.progress import progress_bar
from pipelines.base.rng import rng_for
from training.parallel import cpu_threads
from training.trunk import Trunk, recalibrate

__all__ = ["EVALUATION", "DenseConfig", "cell_labels", "check", "measure_dense", "open_masks", "run"]

Floats = npt.NDArray[Any]
NUM_FOLDS = 5


class DenseConfig(Config):
    """Options of the dense probe."""

    data: Path
    """Folder in VOC layout (SegmentationClass), DAVIS layout, or with cutouts/ and photos/ to compose."""
    train_split: str = "train"
    """Images to fit on."""
    test_split: str = "test"
    """Images to score; val for VOC."""
    height_px: int = Field(default=240, ge=16)
    """Height that images are resized to; time grows with it."""
    width_px: int = Field(default=320, ge=16)
    """Width that images are resized to; time grows with it."""
    num_cells: int = Field(default=50_000, ge=100)
    """Most cells that the layer is fitted on; memory (4 bytes x channels each) and time grow with it."""
    balanced: bool = False
    """Draw the same number of cells of every class that an image has, none of an image of one class. For rare objects:
    a layer fitted on cells as they come answers background everywhere until its features are good."""
    recalibrate_norm: bool = True
    """Re-estimate batch norm statistics on the train images first, without labels; one more pass over them."""
    per_cutout: int = Field(default=4, ge=1)
    """Composites made of every cut-out; time grows with it."""
    l2_grid: list[float] = Field(default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0], min_length=1)
    """Values the L2 penalty is chosen from; every value costs a fit."""
    max_iterations: int = Field(default=200, ge=1)
    """L-BFGS iterations of every fit at most."""


LAYOUTS: tuple[Layout[DenseConfig, MaskedSplit], ...] = (
    Layout(fits=is_voc_masks, open=lambda config: open_voc_masks(config.data, _splits(config)), needs=VOC_MASKS_NEED),
    Layout(fits=is_davis, open=lambda config: open_davis(config.data, _splits(config)), needs=DAVIS_NEEDS),
    Layout(
        fits=is_composites,
        open=lambda config: open_composite_masks(config.data, _splits(config), per_cutout=config.per_cutout),
        needs=COMPOSITES_NEED,
    ),
)


def _splits(config: DenseConfig) -> tuple[str, str]:
    return config.train_split, config.test_split


def open_masks(config: DenseConfig) -> tuple[MaskedSplit, MaskedSplit]:
    """Return the train and the test split; no pixel is decoded. Raises UsageError or DataError."""
    return open_data(config, LAYOUTS)


def check(context: Context, config: DenseConfig) -> None:
    """Read the headers of all images and masks. Raises UsageError or DataError for what is unfit."""
    open_masks(config)


def run(context: Context, config: DenseConfig) -> Results:
    """Return the results of `measure_dense` for the trunk of the context."""
    with cpu_threads(0):
        return measure_dense(context.the_trunk().load(), config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """Cells drawn from the train images: features (N, C), labels (N,), fold of their image's group (N,); and counts of
    labels at every place (K, h, w)."""

    features_NC: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.int64]
    folds_N: npt.NDArray[np.int64]
    counts_Khw: npt.NDArray[np.int64]


def measure_dense(trunk: Trunk, config: DenseConfig) -> dict[str, Any]:
    """Fit on one split and score the other. Results: mean_iou_pct, iou_by_class_pct, pixel_accuracy_pct, the same of
    `place`, and what was fitted. Raises UsageError or DataError for data that is unfit."""
    train, test = open_masks(config)
    trunk.eval()
    if config.recalibrate_norm:
        _recalibrate(trunk, train, config)
    # 1. Cells of the train images, standardised by their own mean and deviation.
    cells = _train_cells(trunk, train, config)
    mean_C, deviation_C = cells.features_NC.mean(axis=0), cells.features_NC.std(axis=0)
    scale_C = np.divide(1, deviation_C, out=np.zeros_like(deviation_C), where=deviation_C > 1e-12)
    standard_NC = (cells.features_NC - mean_C) * scale_C
    # 2. The layer. Held out are whole groups: cells of one video, or one object, are alike.
    chosen = choose_l2(
        standard_NC[None],
        cells.labels_N,
        len(train.class_names),
        cells.folds_N,
        held_out=range(1),
        grid=config.l2_grid,
        max_iterations=config.max_iterations,
    )
    weight_KC = (chosen.layer.weight_DK * scale_C[:, None]).T
    bias_K = chosen.layer.bias_K - weight_KC @ mean_C
    # 3. The test images, once.
    answers, place = _score(trunk, test, weight_KC, bias_K, cells.counts_Khw, config)
    return {
        **answers.results(train.class_names),
        "place": place.results(train.class_names),
        "l2": chosen.l2,
        "held_out_loss": chosen.held_out_loss,
        "num_train": len(train.names),
        "num_test": len(test.names),
        "num_cells": len(cells.labels_N),
        "num_features": standard_NC.shape[1],
    }


def _inputs(images: list[MaskedImage], config: DenseConfig, device: torch.device) -> torch.Tensor:
    size = (config.width_px, config.height_px)
    resized = [cv2.resize(image.rgb_HW3, size, interpolation=cv2.INTER_AREA) for image in images]
    return torch.from_numpy(np.stack(resized)).to(device).permute(0, 3, 1, 2).float() / 255


def _recalibrate(trunk: Trunk, train: MaskedSplit, config: DenseConfig) -> None:
    device = next(trunk.parameters()).device
    batches = [range(start, min(start + 16, len(train.names))) for start in range(0, len(train.names), 16)]
    recalibrate(trunk, (_inputs([train.read(row) for row in rows], config, device) for rows in batches))


def cell_labels(mask_HW: npt.NDArray[np.uint8], num_classes: int, height: int, width: int) -> npt.NDArray[np.int64]:
    """Return the label of most pixels of every cell, (height, width); IGNORED where most of them are ignored."""
    shares = [
        cv2.resize((mask_HW == label).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for label in (*range(num_classes), IGNORED)
    ]
    best = np.argmax(np.stack(shares), axis=0)
    return np.where(best == num_classes, IGNORED, best)


@torch.no_grad()
def _train_cells(trunk: Trunk, train: MaskedSplit, config: DenseConfig) -> _Cells:
    """Walk over the train images once; every image gives the same number of cells, drawn by its name."""
    device, num_classes = next(trunk.parameters()).device, len(train.class_names)
    per_image = max(1, config.num_cells // len(train.names))
    groups = {name: index for index, name in enumerate(dict.fromkeys(train.groups))}
    features, labels, folds = [], [], []
    counts_Khw: npt.NDArray[np.int64] | None = None
    with progress_bar("dense: train", total=len(train.names), unit="images") as bar:
        for row, name in enumerate(train.names):
            image = train.read(row)
            map_Chw = trunk(_inputs([image], config, device)).last[0].float().cpu().numpy()
            label_hw = cell_labels(image.mask_HW, num_classes, *map_Chw.shape[1:])
            if counts_Khw is None:
                counts_Khw = np.zeros((num_classes, *label_hw.shape), dtype=np.int64)
            counts_Khw += label_hw == np.arange(num_classes)[:, None, None]
            known = np.flatnonzero(label_hw.ravel() != IGNORED)
            order = rng_for(0, 0, name, "dense cells").permutation(known)
            drawn = np.sort(_evenly(order, label_hw.ravel(), per_image) if config.balanced else order[:per_image])
            features.append(map_Chw.reshape(len(map_Chw), -1).T[drawn])
            labels.append(label_hw.ravel()[drawn])
            folds.append(np.full(len(drawn), groups[train.groups[row]] % NUM_FOLDS))
            bar.advance()
    labels_N, folds_N = np.concatenate(labels), np.concatenate(folds)
    if len(np.unique(labels_N)) < 2 or len(np.unique(folds_N)) < 2:
        raise DataError(
            f"{config.data}: the train split has {len(np.unique(labels_N))} classes in {len(groups)} groups of images; "
            "the dense probe needs 2 of each."
        )
    assert counts_Khw is not None
    return _Cells(features_NC=np.concatenate(features), labels_N=labels_N, folds_N=folds_N, counts_Khw=counts_Khw)


def _evenly(order: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the first cells of every class in `order`: as many of each, and at most `count` in all."""
    classes = [order[labels[order] == label] for label in np.unique(labels[order])]
    # Of an image of one class nothing: it would tip the balance.
    each = min([max(1, count // len(classes)), *map(len, classes)]) if len(classes) > 1 else 0
    return np.concatenate([order[:0], *(cells[:each] for cells in classes)])


@torch.no_grad()
def _score(
    trunk: Trunk,
    test: MaskedSplit,
    weight_KC: Floats,
    bias_K: Floats,
    counts_Khw: npt.NDArray[np.int64],
    config: DenseConfig,
) -> tuple[ConfusionMatrix, ConfusionMatrix]:
    """Return the counts of the layer's answers and of the most frequent train label of each place."""
    device = next(trunk.parameters()).device
    weight = torch.from_numpy(weight_KC).float().to(device)[:, :, None, None]
    bias = torch.from_numpy(bias_K).float().to(device)
    sums_K11 = np.maximum(counts_Khw.sum(axis=(1, 2), keepdims=True), 1) if config.balanced else 1
    place_1Khw = torch.from_numpy(counts_Khw / sums_K11).float()[None]
    answers, place = ConfusionMatrix(len(bias_K)), ConfusionMatrix(len(bias_K))
    with progress_bar("dense: test", total=len(test.names), unit="images") as bar:
        for row in range(len(test.names)):
            image = test.read(row)
            logits_1Khw = F.conv2d(trunk(_inputs([image], config, device)).last.float(), weight, bias)
            for matrix, answer_1Khw in ((answers, logits_1Khw), (place, place_1Khw)):
                matrix.add(_labels(answer_1Khw, image.mask_HW.shape), image.mask_HW)
            bar.advance()
    return answers, place


def _labels(answer_1Khw: torch.Tensor, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the class with the highest answer at every pixel, after the answers are resized."""
    at_pixels = F.interpolate(answer_1Khw, size, mode="bilinear", align_corners=False)
    return at_pixels[0].argmax(0).cpu().numpy().astype(np.uint8)


EVALUATION = evaluation_of_own_data(config_class=DenseConfig, run=run, check=check, metric="mean_iou_pct")
