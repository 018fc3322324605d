"""Options that the tasks of a cell do not read, set back to their defaults.

A stage's key is made of its configuration. Without this, another size of clips would train colorization anew.
"""

from typing import Any

from pipelines.pipeline_config import SOURCE_NAMES, PipelineConfig, SourceName
from pipelines.shards.format.manifest import Kind
from pipelines.targets.color.harmonize import task_sees_lightness
from pipelines.tasks import TASKS
from training.config import PretrainConfig

__all__ = ["without_unread_options"]

READ_BY = {
    "image": ("batch_size", "canvas_px", "canvas_scale", "share_decode"),
    "clip": ("clip_batch_size", "clip_height_px", "clip_width_px", "num_frames"),
}
"""Fields of the pipeline that tasks on one source alone read."""


def without_unread_options(config: PretrainConfig) -> PretrainConfig:
    """Return a checked config in which only options that its tasks read differ from their defaults.

    The trained weights are the same.
    """
    tasks = config.pipeline.tasks
    sources = {TASKS[name].source for name in tasks}
    unread = [field for source, fields in READ_BY.items() if source not in sources for field in fields]
    # Harmonization that leaves these tasks' inputs as they are.
    mode = config.pipeline.harmonize
    if not any(task_sees_lightness(mode, name) for name in tasks):
        unread.append("harmonize")
    placement = {name: given for name, given in config.pipeline.placement.items() if name in _names(sources)}
    defaults: dict[str, Any] = {name: PipelineConfig.model_fields[name].get_default() for name in unread}
    defaults["placement"] = placement
    heads = config.heads.model_copy(
        update={"options": {name: value for name, value in config.heads.options.items() if name in tasks}}
    )
    return config.model_copy(update={"pipeline": config.pipeline.model_copy(update=defaults), "heads": heads})


def _names(kinds: set[Kind]) -> set[SourceName]:
    return {SOURCE_NAMES[kind] for kind in kinds}
