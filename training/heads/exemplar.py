"""Exemplar: two views of one image must lie nearer than views of two images (paper section 2, 3.4).

The 3x3x512 output of the patch encoder is compared directly, by cosine distance.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import PatchEncoder
from training.updates.losses import Loss, triplet

__all__ = ["ExemplarHead", "ExemplarHeadConfig"]


class ExemplarHeadConfig(HeadConfig):
    margin: float = Field(default=0.5, gt=0.0, le=2.0)
    """How much nearer, in cosine distance (0 to 2). The paper's is 0.5."""
    negatives: Literal["one", "all"] = "one"
    """Anchors of other images that a row is compared with: the one the task chose (the paper's), or all of the batch,
    which learns faster from small batches."""


class ExemplarHead(Head):
    name: ClassVar[str] = "exemplar"
    config_class: ClassVar[type[HeadConfig]] = ExemplarHeadConfig
    config: ExemplarHeadConfig

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__(config, preset, shape)
        self.encode = PatchEncoder(preset, shape)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Codes (R, 2, D) from features of anchors and positives (R * 2, C, h, w)."""
        code = self.encode(features)
        return code.view(len(code) // 2, 2, -1)  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        negative = batch.target["negative"]
        if self.config.negatives == "all":
            is_negative = _are_of_other_samples(batch)
        else:
            is_negative = negative[:, None] == torch.arange(len(negative), device=negative.device)[None, :]
        anchor, positive = prediction.unbind(1)
        return triplet(anchor, positive, is_negative, batch.weight, self.config.margin)

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """One code for every view: the loss is the margin, and which of two views is nearer is a coin toss."""
        constant = Loss(total=torch.tensor(self.config.margin), metrics={"satisfied": torch.tensor(0.5)})
        return {"constant": lambda batch: constant}


def _are_of_other_samples(batch: TaskBatch) -> torch.Tensor:
    """bool (R, R), on the batch's device: rows i and j come from different samples. Does not wait for the device."""
    device = batch.weight.device
    number = {key: index for index, key in enumerate(dict.fromkeys(batch.keys))}
    sample_B = torch.tensor([number[key] for key in batch.keys], pin_memory=device.type == "cuda")
    # R numbers are sent and compared there: a mask made here would be R^2 bytes, and a copy from memory that is not
    # pinned waits until the device has done all earlier steps.
    sample_R = sample_B.to(device, non_blocking=True).repeat_interleave(len(batch.inputs) // len(batch.keys))
    return sample_R[:, None] != sample_R[None, :]
