"""`ProfileConfig`: what is profiled, and for how long. It is read from a YAML of a pipeline, a pretraining or a
profile, or made for a folder of shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from benchmarks.recipe_files import find_recipe
from pipelines.base.config import Config, apply_overrides, read_yaml, validate
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from training.config import PretrainConfig

__all__ = ["ProfileConfig", "changed", "load_profile"]

IMAGE_TASKS = ("relative_position", "colorization", "exemplar")
CLIP_TASK = "motion_segmentation"


class ProfileConfig(Config):
    """A pipeline, the consumer of its batches, and how long to measure."""

    pipeline: PipelineConfig
    """Its batches are what is counted."""
    train: PretrainConfig | None = None
    """A real trainer takes the batches; `pipeline` inside is ignored. Its steps compete for the cores of a CPU."""
    device_samples_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In place of a trainer: a device that takes this many samples per second and leaves the cores alone."""
    overlap_transfer: bool = False
    """Copy batches to the device in a thread of its own, one ahead of the step. Holds one more step in memory."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seconds: float = Field(default=16.0, ge=0.5, le=3600)
    """For measuring, without the limits of the machine, which are measured once and kept. More is steadier."""
    num_repeats: int = Field(default=5, ge=2, le=100)
    """Turns that the variants take. More and shorter turns average out more of a noisy machine."""

    @model_validator(mode="after")
    def _check_one_consumer(self) -> "ProfileConfig":
        if self.train is not None and self.device_samples_per_s is not None:
            raise ValueError("train and device_samples_per_s are both given; give one of them, or none")
        return self


def changed(config: ProfileConfig, settings: Mapping[str, Any]) -> ProfileConfig:
    """Return a config with other values by dotted name, such as {"pipeline.num_threads": 1}. Raises UsageError."""
    # Tasks have config classes of their own; without serialize_as_any only the fields of their base would be kept.
    value = config.model_dump(mode="python", serialize_as_any=True)
    for name, setting in settings.items():
        *parents, last = name.split(".")
        place = value
        for parent in parents:
            place = place[parent]
        place[last] = setting
    return validate(ProfileConfig, value, source="changed profile")


def load_profile(source: Path, overrides: Sequence[str] = ()) -> ProfileConfig:
    """Load a profile from a folder of shards, or a YAML of a pipeline, a pretraining or a profile. Raises
    UsageError."""
    if not source.is_dir():
        shards = "a folder of shards (fourfold shards build makes one)"
        source = find_recipe(source, "profiles", "pipelines", "pretrain", or_give=shards)
    if source.suffix not in (".yaml", ".yml"):
        return validate(ProfileConfig, apply_overrides(_of_folder(source), overrides), source=str(source))
    value, lines = read_yaml(source)
    value = apply_overrides(value, overrides)
    # The kind of config that knows most of the keys, so that a slip of the pen in one is told in the words of the rest.
    kinds: tuple[type[Config], ...] = (ProfileConfig, PretrainConfig, PipelineConfig)
    kind = max(kinds, key=lambda one: len(set(value) & set(one.model_fields)))
    checked = validate(kind, value, source=str(source), lines=lines)
    if isinstance(checked, PipelineConfig):
        return ProfileConfig(pipeline=checked)
    if isinstance(checked, PretrainConfig):
        return ProfileConfig(pipeline=checked.pipeline, train=checked)
    assert isinstance(checked, ProfileConfig)
    return checked


def _of_folder(folder: Path) -> Mapping[str, Any]:
    """Return all tasks that a folder has samples for, as they come. Raises UsageError if it is no folder of shards."""
    from pipelines.shards.format.manifest import load_manifest

    # Train alone, since that is what a pipeline reads by default.
    kinds = {shard.kind for shard in load_manifest(folder).shards if shard.split == "train"}
    if not kinds:
        raise UsageError(f"{folder}: no samples of split train. Give a YAML with pipeline.split instead of a folder.")
    pipeline: dict[str, Any] = {"tasks": {}}
    if "image" in kinds:
        pipeline["images"] = folder
        pipeline["tasks"] |= {name: {} for name in IMAGE_TASKS}
    if "clip" in kinds:
        pipeline["clips"] = folder
        pipeline["tasks"][CLIP_TASK] = {}
    return {"pipeline": pipeline}
