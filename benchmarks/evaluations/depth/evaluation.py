"""Depth evaluation: the trunk, fine-tuned or frozen, predicts depth of single images (paper section 5.1, NYUv2).

Images are resized to `width_px` x `height_px`, mirrored at random in training, and trained on with the reverse Huber
loss. Predictions are resized to the measured depth, whose known pixels all count once. The mean depth image of the
train split is scored beside it: a network that is not above it has not looked at the picture.

The paper gives no schedule and no augmentation for depth; Laina et al. also crop, scale, turn and recolor.
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
from benchmarks.evaluations.depth.metrics import DepthSums
from benchmarks.evaluations.depth.model import DepthNetwork, filters_of, reverse_huber
from benchmarks.evaluations.depth.nyu import NYU_NEEDS, is_nyu, open_nyu
from benchmarks.evaluations.depth.pair import DepthSplit, Pair
from benchmarks.evaluations.depth.pairs import DepthStatistics, check_depths, is_pairs, open_pairs
from benchmarks.evaluations.fine_tuning.attempt import attempt_of
from benchmarks.evaluations.fine_tuning.features import TrunkFeatures
from benchmarks.evaluations.fine_tuning.loop import FineTuneConfig, fine_tune, rows_of_step
from benchmarks.evaluations.own_data import Layout, data_content, evaluation_of_own_data, open_data
from pipelines.base.progress import progress_bar
from pipelines.base.rng import rng_for
from training.parallel import cpu_threads
from training.trunk import Trunk

__all__ = ["EVALUATION", "DepthConfig", "MeanDepth", "check", "measure_depth", "open_depth", "run"]

Floats = npt.NDArray[np.float32]


class DepthConfig(FineTuneConfig):
    """Options of the depth evaluation."""

    data: Path
    """Folder of NYUv2's two files, or of rgb/ and depth/ (layouts: docs/detection-depth.md)."""
    train_split: str = "train"
    """Pairs to train on."""
    test_split: str = "test"
    """Pairs to score."""
    units_per_m: float = Field(default=1000.0, gt=0.0)
    """Units of a 16-bit depth image in a meter; 1000 for millimeters. Not used for NYUv2."""
    width_px: int = Field(default=304, ge=32)
    """Width that images are resized to; time grows with it."""
    height_px: int = Field(default=228, ge=32)
    """Height that images are resized to; time grows with it."""
    freeze_trunk: bool = False
    """Train the up-projections alone. The paper fine-tunes all weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    image_NCHW: torch.Tensor
    depth_NCHW: torch.Tensor


def open_depth(config: DepthConfig) -> tuple[DepthSplit, DepthSplit]:
    """Return the train and the test split; no pixel is read. Raises UsageError or DataError."""
    splits = (config.train_split, config.test_split)
    nyu: Layout[DepthConfig, DepthSplit] = Layout(
        fits=is_nyu, open=lambda config: open_nyu(config.data, splits), needs=NYU_NEEDS
    )
    folders: Layout[DepthConfig, DepthSplit] = Layout(
        fits=lambda data: is_pairs(data, splits),
        open=lambda config: open_pairs(config.data, splits, units_per_m=config.units_per_m),
        needs="folders: rgb/NAME.jpg or .png beside depth/NAME.png of 16 bits, in train/ and test/, or in one folder "
        "with train.txt and test.txt that list the names",
    )
    return open_data(config, (nyu, folders))


def check(context: Context, config: DepthConfig) -> None:
    """Read every pair once. Raises UsageError or DataError for a wrong layout or unfit depth."""
    names = (config.train_split, config.test_split)
    for split, name in zip(open_depth(config), names, strict=True):
        check_depths(split, name)


def run(context: Context, config: DepthConfig) -> Results:
    """Return the results of `measure_depth` for the trunk of the context."""
    with attempt_of(context, "depth", config, data_content(config)) as attempt, cpu_threads(0):
        return measure_depth(context.the_trunk().load(), config, folder=attempt.folder, key=attempt.key)


def measure_depth(trunk: Trunk, config: DepthConfig, *, folder: Path, key: str) -> dict[str, Any]:
    """Train on one split and score the other. Results: under_1.25_pct, under_1.25_2_pct, under_1.25_3_pct, mae_m, mre,
    log10, rmse_m; `mean_image`, the same of the mean depth image; and what was trained.

    The trunk is changed in place. `check` comes before: an unfit pair late in the test split would cost the run.
    """
    # 1. The train pairs are read once for their mean and deviation, which the network answers in.
    train, test = open_depth(config)
    mean_depth = MeanDepth(config.height_px, config.width_px)
    statistics = check_depths(train, config.train_split, visit=mean_depth.add)
    # 2. The network, with new weights that depend on the seed only.
    network = _network(trunk, statistics, config)
    curve = fine_tune(
        network,
        lambda step: _train_batch(train, step, config),
        lambda batch: _losses(network, batch, config),
        config,
        label="depth",
        folder=folder,
        key=key,
    )
    # 3. The test split, once.
    predicted, baseline = _score(network, test, mean_depth.image(), config)
    return {
        **predicted.results(),
        "mean_image": baseline.results(),
        "num_train": len(train.names),
        "num_test": len(test.names),
        "num_test_pixels": predicted.num_pixels,
        "unknown_train_ratio": statistics.unknown_ratio,
        "filters": list(filters_of(trunk.num_channels)),
        "lasso_mix": _mix(network.features),
        "learning_curve": curve.loss,
        "training_s": curve.seconds,
    }


def _network(trunk: Trunk, statistics: DepthStatistics, config: DepthConfig) -> DepthNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(int(rng_for(config.seed, 0, "weights", "depth").integers(2**62)))
        features = TrunkFeatures(trunk, lasso=config.lasso)
        network = DepthNetwork(features, mean_m=statistics.mean_m, deviation_m=statistics.deviation_m)
    trunk.requires_grad_(not config.freeze_trunk)
    return network.to(next(trunk.parameters()).device)


def _losses(network: DepthNetwork, batch: _Batch, config: DepthConfig) -> dict[str, torch.Tensor]:
    device = network.scale.device
    predicted = network(batch.image_NCHW.to(device))
    measured = F.interpolate(batch.depth_NCHW.to(device), predicted.shape[2:], mode="nearest")
    # In deviations of the train split's depth: the learning rate must not depend on the unit or the room.
    losses = {"depth": reverse_huber(predicted, measured) / network.scale[1]}
    if network.features.lasso is not None:
        losses["lasso"] = config.lasso_l1 * network.features.lasso.l1()
    return losses


def _train_batch(split: DepthSplit, step: int, config: DepthConfig) -> _Batch:
    pairs = []
    for place, row in enumerate(rows_of_step(step, len(split.names), config)):
        pair = _resized(split.read(row), config)
        if rng_for(config.seed, step, f"image {place}", "depth").random() < 0.5:
            pair = Pair(rgb_HW3=pair.rgb_HW3[:, ::-1], depth_HW=pair.depth_HW[:, ::-1])
        pairs.append(pair)
    return _Batch(
        image_NCHW=_images(pairs), depth_NCHW=torch.from_numpy(np.stack([p.depth_HW for p in pairs]))[:, None]
    )


def _images(pairs: list[Pair]) -> torch.Tensor:
    return torch.from_numpy(np.stack([pair.rgb_HW3 for pair in pairs])).permute(0, 3, 1, 2).float() / 255


def _resized(pair: Pair, config: DepthConfig) -> Pair:
    """Return the pair at the network's size. Depth by the nearest pixel: a mean over an edge is nowhere in the room."""
    size = (config.width_px, config.height_px)
    rgb_HW3 = np.asarray(cv2.resize(pair.rgb_HW3, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    depth_HW = np.asarray(cv2.resize(pair.depth_HW, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)
    return Pair(rgb_HW3=rgb_HW3, depth_HW=depth_HW)


@torch.no_grad()
def _score(
    network: DepthNetwork, test: DepthSplit, mean_HW: Floats, config: DepthConfig
) -> tuple[DepthSums, DepthSums]:
    """Return the sums of the network's predictions and of the mean depth image."""
    sums, baseline = DepthSums(), DepthSums()
    network.eval()
    with progress_bar("depth: test", total=len(test.names), unit="images") as bar:
        for index in range(len(test.names)):
            pair = test.read(index)
            image_NCHW = _images([_resized(pair, config)]).to(network.scale.device)
            answer = F.interpolate(network(image_NCHW), pair.depth_HW.shape, mode="bilinear", align_corners=False)
            sums.add(answer[0, 0].float().cpu().numpy(), pair.depth_HW)
            height, width = pair.depth_HW.shape
            mean = cv2.resize(mean_HW, (width, height), interpolation=cv2.INTER_LINEAR)
            baseline.add(np.asarray(mean, dtype=np.float32), pair.depth_HW)
            bar.advance()
    return sums, baseline


def _mix(features: TrunkFeatures) -> list[float] | None:
    return None if features.lasso is None else [round(w, 4) for w in features.lasso.weights().tolist()]


class MeanDepth:
    """Mean over pairs of the known depths at every place; the overall mean where depth was never known."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self._sum_HW = np.zeros((height_px, width_px))
        self._count_HW = np.zeros((height_px, width_px))

    def add(self, pair: Pair) -> None:
        height, width = self._sum_HW.shape
        depth_HW = cv2.resize(pair.depth_HW, (width, height), interpolation=cv2.INTER_NEAREST)
        is_known = depth_HW > 0
        self._sum_HW[is_known] += depth_HW[is_known]
        self._count_HW += is_known

    def image(self) -> Floats:
        """Return float32 meters (height_px, width_px). Raises ZeroDivisionError without one known pixel."""
        overall = float(self._sum_HW.sum()) / float(self._count_HW.sum())
        mean_HW = np.full(self._sum_HW.shape, overall)
        np.divide(self._sum_HW, self._count_HW, out=mean_HW, where=self._count_HW > 0)
        return mean_HW.astype(np.float32)


EVALUATION = evaluation_of_own_data(config_class=DepthConfig, run=run, check=check, metric="under_1.25_pct")
