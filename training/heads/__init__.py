"""One head per task, by the task's name. A new head is one file here and one line below (docs/add-a-task.md)."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from pipelines.base.config import Config, validate
from pipelines.base.errors import UsageError
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.colorization import ColorizationHead
from training.heads.exemplar import ExemplarHead
from training.heads.motion_segmentation import MotionSegmentationHead
from training.heads.relative_position import RelativePositionHead
from training.heads.supervised import SupervisedHead

__all__ = ["HEADS", "Head", "HeadConfig", "HeadInput", "HeadsConfig", "Preset", "build_head"]

HEADS: dict[str, type[Head]] = {
    head.name: head
    for head in (RelativePositionHead, ColorizationHead, ExemplarHead, MotionSegmentationHead, SupervisedHead)
}


class HeadsConfig(Config):
    """Size of all heads, and the options of single ones."""

    preset: Preset = "paper"
    """"paper": sizes of section 3.4, 1.3 M weights (exemplar) to 34.8 M (colorization) with the recipe `paper`.
    "small": for minutes on a CPU, 0.01 M (motion_segmentation) to 0.5 M (relative_position) with the recipe `small`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Per task, for example `exemplar: {negatives: all}`."""

    @field_validator("options", mode="after")
    @classmethod
    def _checked(cls, options: dict[str, Any]) -> dict[str, Any]:
        for task, value in options.items():
            _options_of(task, value)
        return options


def _options_of(task: str, value: Mapping[str, Any]) -> HeadConfig:
    if task not in HEADS:
        raise ValueError(f"no head named {task}; there are {', '.join(HEADS)}")
    try:
        return validate(HEADS[task].config_class, value, source=f"heads.options.{task}")
    except UsageError as error:
        raise ValueError(str(error)) from error


def build_head(task: str, config: HeadsConfig, shape: HeadInput) -> Head:
    """The head of a task. Raises UsageError for a task without one."""
    if task not in HEADS:
        raise UsageError(f"{task}: no head of this name; there are {', '.join(HEADS)}. Add one in training/heads.")
    return HEADS[task](_options_of(task, config.options.get(task, {})), config.preset, shape)
