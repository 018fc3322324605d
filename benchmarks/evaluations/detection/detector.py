"""Faster R-CNN of torchvision's parts around the trunk, as in the paper (section 5.1): the trunk up to its third stage
feeds the region proposals, a fresh fourth stage is the head of each proposal.

The only file that imports torchvision's detection. Images are float32 RGB in [0, 1], already resized.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.evaluations.fine_tuning.features import TrunkFeatures
from training.heads.supervised import fourth_stage
from training.heads.units import initialise

__all__ = ["FourthStage", "build_detector"]

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
ANCHOR_SHARES = (128 / 600, 256 / 600, 512 / 600)
"""Sides of anchors as shares of the test images' short side: 128, 256 and 512 px at the usual 600."""


class FourthStage(nn.Module):
    """Head of a proposal: three residual units, the first of stride 2, batch norm, ReLU, mean over places."""

    def __init__(self, num_channels: int, state: Mapping[str, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.units = nn.Sequential(*fourth_stage(num_channels))
        self.norm = nn.BatchNorm2d(2 * num_channels)
        initialise(self.units)
        self.num_features = 2 * num_channels
        if state is not None:
            self.load_state_dict(state)

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        """(R, C, h, w) -> (R, 2C)."""
        pooled: torch.Tensor = F.relu(self.norm(self.units(regions))).mean((2, 3))
        return pooled


class _NormedRPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's head of proposals behind batch norm and ReLU: the trunk's output is a raw sum of units."""

    def __init__(self, num_channels: int, num_anchors: int) -> None:
        super().__init__(num_channels, num_anchors)
        self.norm = nn.BatchNorm2d(num_channels)

    def forward(self, x: list[torch.Tensor]) -> Any:
        return super().forward([F.relu(self.norm(one)) for one in x])


class _Batching(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Batches images as they are. torchvision's own resizing does not average where it shrinks."""

    def resize(self, image: torch.Tensor, target: Any = None) -> tuple[torch.Tensor, Any]:
        return image, target


class _Backbone(nn.Module):
    def __init__(self, features: TrunkFeatures) -> None:
        super().__init__()
        self.features = features
        self.out_channels = features.num_channels

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.features(images_NCHW)
        return features


def build_detector(
    features: TrunkFeatures,
    *,
    num_classes: int,
    short_side_px: int,
    roi_cells: int,
    rois_per_image: int,
    fourth_state: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Return a detector of `num_classes` classes and the background. All other settings are torchvision's.

    In training mode model(images, targets) gives a dict of losses; in eval mode model(images) gives a dict of boxes,
    labels (from 1) and scores for every image. New weights come from torch's generator.
    """
    sides = tuple(round(share * short_side_px) for share in ANCHOR_SHARES)
    anchors = AnchorGenerator(sizes=(sides,), aspect_ratios=(ANCHOR_RATIOS,))
    head = FourthStage(features.num_channels, fourth_state)
    detector = FasterRCNN(
        _Backbone(features),
        min_size=short_side_px,
        rpn_anchor_generator=anchors,
        rpn_head=_NormedRPNHead(features.num_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign(featmap_names=["0"], output_size=roi_cells, sampling_ratio=2),
        box_head=head,
        box_predictor=FastRCNNPredictor(head.num_features, num_classes + 1),
        box_batch_size_per_image=rois_per_image,
    )
    # The trunk subtracts the mean itself.
    detector.transform = _Batching(short_side_px, short_side_px, [0.0] * 3, [1.0] * 3)
    module: nn.Module = detector
    return module
