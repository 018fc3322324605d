"""Exemplar: two views of one image must lie nearer than views of two images (paper section 2, 3.4).

The 3x3x512 output of the patch encoder is compared directly, by cosine distance.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import ClassVar, Literal

import torch
from pydantic import Field

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import PatchEncoder
from training.ranks.shared_batch import all_rows, sharing_ranks
from training.updates.losses import Loss, triplet

__all__ = ["ExemplarHead", "ExemplarHeadConfig"]


class ExemplarHeadConfig(HeadConfig):
    margin: float = Field(default=0.5, gt=0.0, le=2.0)
    """How much nearer, in cosine distance (0 to 2). The paper's is 0.5."""
    negatives: Literal["one", "all"] = "one"
    """Anchors of other images that a row is compared with: the one the task chose (the paper's), or all of the batch,
    which learns faster from small batches. Those of other ranks count, too."""


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
        is_negative = _all_negatives(batch) if self.config.negatives == "all" else _chosen_negatives(batch)
        anchor, positive = prediction.unbind(1)
        return triplet(anchor, positive, is_negative, batch.weight, self.config.margin)

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """One code for every view: the loss is the margin, and which of two views is nearer is a coin toss."""
        constant = Loss(total=torch.tensor(self.config.margin), metrics={"satisfied": torch.tensor(0.5)})
        return {"constant": lambda batch: constant}


def _all_negatives(batch: TaskBatch) -> torch.Tensor:
    """bool (R, S), on the batch's device: row i and row j of all ranks come from different samples. Does not wait for
    the device."""
    sample_R = _sample_numbers(batch)
    return sample_R[:, None] != all_rows(sample_R)[None, :]


def _chosen_negatives(batch: TaskBatch) -> torch.Tensor:
    """bool (R, S): the negative that the task chose for row i, the first following row of another sample, is row j of
    all ranks. "Following" is cyclic over the rows of all ranks."""
    ranks, negative_R = sharing_ranks(), batch.target["negative"]
    if ranks is None:
        return negative_R[:, None] == torch.arange(len(negative_R), device=negative_R.device)[None, :]
    # Chosen anew: the task has seen this rank's rows alone, and would take the first of them as what follows the last.
    is_other_RS = _all_negatives(batch)
    num_rows, num_all = is_other_RS.shape
    row_S = torch.arange(num_all, device=is_other_RS.device)
    steps_RS = (row_S[None, :] - row_S[ranks.rank * num_rows :][:num_rows, None]) % num_all
    first_R = torch.where(is_other_RS, steps_RS, num_all).argmin(1)
    return is_other_RS & (row_S[None, :] == first_R[:, None])


def _sample_numbers(batch: TaskBatch) -> torch.Tensor:
    """int64 (R,): equal for rows of the same sample, on all ranks that share the batch."""
    device = batch.weight.device
    if sharing_ranks() is None:
        number = {key: index for index, key in enumerate(dict.fromkeys(batch.keys))}
    else:
        # A digest and not a count: ranks do not know each other's keys.
        number = {key: int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), signed=True) for key in batch.keys}
    sample_B = torch.tensor([number[key] for key in batch.keys], pin_memory=device.type == "cuda")
    # R numbers are sent and compared there: a mask made here would be R^2 bytes, and a copy from memory that is not
    # pinned waits until the device has done all earlier steps.
    return sample_B.to(device, non_blocking=True).repeat_interleave(len(batch.inputs) // len(batch.keys))
