"""Detection evaluation: Faster R-CNN around the trunk, all weights fine-tuned (paper section 5.1, PASCAL VOC 2007).

The paper trains on VOC07 trainval at several scales, tests on VOC07 test and reports mean AP at an overlap of 0.5 (and
0.75); everything else is the default of Faster R-CNN. Images are resized to a short side drawn from `train_px` and
mirrored at random; the test split is seen at `test_px`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import nn

from benchmarks.evaluations.base import Context, Results
from benchmarks.evaluations.composites import COMPOSITES_NEED, is_composites
from benchmarks.evaluations.detection.average_precision import Detections, Truth, coco_results, voc_results
from benchmarks.evaluations.detection.boxed_images import BoxedImage, BoxedSplit, check_classes
from benchmarks.evaluations.detection.coco import COCO_NEEDS, is_coco, open_coco
from benchmarks.evaluations.detection.composites import open_composite_boxes
from benchmarks.evaluations.detection.voc import VOC_NEEDS, is_voc, open_voc
from benchmarks.evaluations.fine_tuning.attempt import attempt_of
from benchmarks.evaluations.fine_tuning.features import TrunkFeatures
from benchmarks.evaluations.fine_tuning.loop import FineTuneConfig, fine_tune, rows_of_step
from benchmarks.evaluations.own_data import Layout, data_content, evaluation_of_own_data, open_data
from pipelines.base.errors import UsageError
from pipelines.base.progress import progress_bar
from pipelines.base.rng import rng_for
from training.parallel import cpu_threads
from training.trunk import Trunk
from training.weights.checkpoint import load_checkpoint

__all__ = ["EVALUATION", "DetectionConfig", "check", "measure_detection", "open_boxes", "run"]

FOURTH_STAGE = "heads.supervised."


class DetectionConfig(FineTuneConfig):
    """Options of the detection evaluation."""

    data: Path
    """Folder in VOC layout (VOC2007), COCO layout, or with cutouts/ and photos/ (layouts: docs/detection-depth.md)."""
    train_split: str = "trainval"
    """Images to train on; train2017 for COCO."""
    test_split: str = "test"
    """Images to score; val2017 for COCO."""
    steps: int = Field(default=20000, ge=1)
    """Steps of training; time grows with it."""
    batch_size: int = Field(default=2, ge=1)
    """Images per step; memory and time grow with it."""
    lr: float = Field(default=0.005, gt=0.0)
    """Highest learning rate. Too large ends in a loss that is not finite, which stops the run."""
    train_px: list[int] = Field(default_factory=lambda: [480, 576, 688, 864], min_length=1)
    """Short sides that training images are resized to, one drawn per step; time grows with their squares."""
    test_px: int = Field(default=600, ge=32)
    """Short side of test images. Anchors are 0.21, 0.43 and 0.85 of it."""
    most_px: int = Field(default=1000, ge=32)
    """Long side that no image exceeds."""
    roi_cells: int = Field(default=14, ge=1)
    """A proposal's features are sampled to roi_cells x roi_cells; time of the head grows with its square."""
    rois_per_image: int = Field(default=128, ge=4)
    """Proposals per image that the head is trained on; time of the head grows with it."""
    per_cutout: int = Field(default=2, ge=1)
    """Composites made of every cut-out, where `data` has cut-outs and photos; time of the test grows with it."""
    fourth_stage: Literal["random", "checkpoint"] = "random"
    """Start of the head: `random` as the paper's self-supervised rows, or the fourth stage of a supervised run with
    heads.preset paper, as its labelled baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    images: list[torch.Tensor]
    targets: list[dict[str, torch.Tensor]]


LAYOUTS: tuple[Layout[DetectionConfig, BoxedSplit], ...] = (
    Layout(fits=is_voc, open=lambda config: open_voc(config.data, _splits(config)), needs=VOC_NEEDS),
    Layout(fits=is_coco, open=lambda config: open_coco(config.data, _splits(config)), needs=COCO_NEEDS),
    Layout(
        fits=is_composites,
        open=lambda config: open_composite_boxes(config.data, _splits(config), per_cutout=config.per_cutout),
        needs=COMPOSITES_NEED,
    ),
)


def _splits(config: DetectionConfig) -> tuple[str, str]:
    return config.train_split, config.test_split


def open_boxes(config: DetectionConfig) -> tuple[BoxedSplit, BoxedSplit]:
    """Return the train and the test split, checked. Raises UsageError or DataError before any step."""
    train, test = open_data(config, LAYOUTS)
    check_classes(train, test, where=str(config.data))
    return train, test


def check(context: Context, config: DetectionConfig) -> None:
    """Read all annotations and the headers of all images. Raises UsageError or DataError for what is unfit."""
    open_boxes(config)
    # A suite checks its data before there is a trunk.
    if context.trunk is not None:
        _fourth_state(context, config)


def run(context: Context, config: DetectionConfig) -> Results:
    """Return the results of `measure_detection` for the trunk of the context."""
    fourth_state = _fourth_state(context, config)
    with attempt_of(context, "detection", config, data_content(config)) as attempt, cpu_threads(0):
        return measure_detection(
            context.the_trunk().load(), config, folder=attempt.folder, key=attempt.key, fourth_state=fourth_state
        )


def _fourth_state(context: Context, config: DetectionConfig) -> dict[str, torch.Tensor] | None:
    """Return weights of the fourth stage of a supervised run; None where it starts at random. Raises UsageError."""
    if config.fourth_stage == "random":
        return None
    run_dir = context.the_trunk().run
    checkpoint = None if run_dir is None else load_checkpoint(run_dir)
    names = () if checkpoint is None else [name for name in checkpoint.model if name.startswith(FOURTH_STAGE)]
    state = {name.removeprefix(FOURTH_STAGE): checkpoint.model[name] for name in names} if checkpoint else {}
    kept = {name: value for name, value in state.items() if name.startswith(("units.", "norm."))}
    if not any(name.startswith("units.") for name in kept):
        raise UsageError(
            "fourth_stage: checkpoint: the trunk's run has no trained fourth stage. It needs a finished run of "
            "supervised with heads.preset: paper. Or give fourth_stage: random."
        )
    return kept


def measure_detection(
    trunk: Trunk,
    config: DetectionConfig,
    *,
    folder: Path,
    key: str,
    fourth_state: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Train on one split and score the other. Results: ap50_11_point_pct (VOC 2007), ap50_area_pct (VOC 2010 on), of
    all classes and by class; ap50_pct, ap75_pct, ap50_95_pct (COCO); and what was trained.

    The trunk is changed in place. Raises UsageError or DataError before the first step for data that is unfit.
    """
    # Imported here: torchvision's detection takes a second, which every command would wait for.
    from benchmarks.evaluations.detection.detector import build_detector

    train, test = open_boxes(config)
    with torch.random.fork_rng():
        # The same new weights whatever the trunk: they depend on the seed alone.
        torch.manual_seed(int(rng_for(config.seed, 0, "weights", "detection").integers(2**62)))
        features = TrunkFeatures(trunk, lasso=config.lasso)
        detector = build_detector(
            features,
            num_classes=len(train.class_names),
            short_side_px=config.test_px,
            roi_cells=config.roi_cells,
            rois_per_image=config.rois_per_image,
            fourth_state=fourth_state,
        )
    device = next(trunk.parameters()).device
    detector.to(device)

    def losses_of(batch: _Batch) -> dict[str, torch.Tensor]:
        images = [image.to(device) for image in batch.images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in batch.targets]
        losses: dict[str, torch.Tensor] = detector(images, targets)
        if features.lasso is not None:
            losses["lasso"] = config.lasso_l1 * features.lasso.l1()
        return losses

    curve = fine_tune(
        detector,
        lambda step: _train_batch(train, step, config),
        losses_of,
        config,
        label="detection",
        folder=folder,
        key=key,
    )
    detections = _detect(detector, test, config, device)
    truths = [
        Truth(boxes_K4=image.boxes_K4, classes_K=image.classes_K, ignored_K=image.ignored_K) for image in test.images
    ]
    mix = None if features.lasso is None else [round(w, 4) for w in features.lasso.weights().tolist()]
    return {
        **voc_results(detections, truths, train.class_names),
        **coco_results(detections, truths),
        "num_train": len(train.images),
        "num_test": len(test.images),
        "num_train_boxes": train.num_boxes,
        "num_test_boxes": test.num_boxes,
        "num_detections": sum(len(found.scores_K) for found in detections),
        "lasso_mix": mix,
        "learning_curve": curve.loss,
        "training_s": curve.seconds,
    }


def _train_batch(split: BoxedSplit, step: int, config: DetectionConfig) -> _Batch:
    """Return images of one short side, drawn for the step, each mirrored with probability 0.5."""
    # One scale for the whole batch: images of several would be padded to the largest.
    scale_px = int(rng_for(config.seed, step, "scale", "detection").choice(config.train_px))
    images, targets = [], []
    for place, row in enumerate(rows_of_step(step, len(split.images), config)):
        boxed = split.images[row]
        image_CHW, scale_2 = _loaded(boxed, scale_px, config.most_px)
        boxes_K4 = boxed.boxes_K4[~boxed.ignored_K] * np.tile(scale_2, 2)
        if rng_for(config.seed, step, f"image {place}", "detection").random() < 0.5:
            image_CHW = image_CHW.flip(-1)
            boxes_K4[:, [0, 2]] = image_CHW.shape[-1] - boxes_K4[:, [2, 0]]
        images.append(image_CHW)
        # Class 0 is torchvision's background.
        labels_K = torch.from_numpy(boxed.classes_K[~boxed.ignored_K] + 1)
        targets.append({"boxes": torch.from_numpy(boxes_K4.astype(np.float32)), "labels": labels_K})
    return _Batch(images=images, targets=targets)


def _loaded(boxed: BoxedImage, short_px: int, most_px: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Return the image, float32 (3, H, W) in [0, 1], and its scale in x and y."""
    rgb_HW3 = boxed.read()
    height, width = rgb_HW3.shape[:2]
    wanted = min(short_px / min(height, width), most_px / max(height, width))
    size = max(1, round(width * wanted)), max(1, round(height * wanted))
    resized = cv2.resize(rgb_HW3, size, interpolation=cv2.INTER_AREA if wanted < 1 else cv2.INTER_LINEAR)
    image_CHW = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).float() / 255
    return image_CHW, np.array([size[0] / width, size[1] / height], dtype=np.float32)


@torch.no_grad()
def _detect(detector: nn.Module, test: BoxedSplit, config: DetectionConfig, device: torch.device) -> list[Detections]:
    """Return the detections of every test image, boxes in pixels of the stored image."""
    detector.eval()
    detections = []
    with progress_bar("detection: test", total=len(test.images), unit="images") as bar:
        for boxed in test.images:
            image_CHW, scale_2 = _loaded(boxed, config.test_px, config.most_px)
            (found,) = detector([image_CHW.to(device)])
            detections.append(
                Detections(
                    boxes_K4=(found["boxes"].cpu().numpy() / np.tile(scale_2, 2)).astype(np.float32),
                    scores_K=found["scores"].cpu().numpy().astype(np.float32),
                    classes_K=found["labels"].cpu().numpy().astype(np.int64) - 1,
                )
            )
            bar.advance()
    return detections


EVALUATION = evaluation_of_own_data(config_class=DetectionConfig, run=run, check=check, metric="ap50_11_point_pct")
