"""Where the samples of one kind come from: one folder of shards, or several with weights.

In YAML: `images: shards/photos`, or `images: [{path: shards/photos, weight: 2}, {path: s3://bucket/scans}]`.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import InitErrorDetails

from pipelines.base.config import Config
from pipelines.shards.format.locations import Location, as_location

__all__ = ["SourceConfig", "Sources", "as_sources"]


class SourceConfig(Config):
    """One source of a mix."""

    path: Location
    """Folder or URL of shards. Listed twice, it is read in two orders."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Samples taken from it, in proportion to those of the other sources; its size does not matter. A small source
    with a large weight is repeated often: its epochs are its own."""


def _parsed(value: Any) -> Any:
    """A list as a tuple of SourceConfig, anything else as a location. Raises ValidationError or ValueError."""
    if not isinstance(value, list | tuple):
        return as_location(value)
    if not value:
        raise ValueError("an empty list; give a folder of shards, or at least one {path: ..., weight: ...}")
    sources, problems = [], []
    for index, item in enumerate(value):
        try:
            sources.append(SourceConfig.model_validate(item))
        except ValidationError as error:
            problems += [_placed(dict(one), index) for one in error.errors()]
    if problems:
        raise ValidationError.from_exception_data("sources", problems)
    return tuple(sources)


def _placed(item: dict[str, Any], index: int) -> InitErrorDetails:
    place = (index, *item["loc"])
    return InitErrorDetails(type=item["type"], loc=place, input=item["input"], ctx=item.get("ctx", {}))


Sources = Annotated[Location | tuple[SourceConfig, ...], BeforeValidator(_parsed)]
"""A field of a config: one location, or several with weights."""


def as_sources(given: Location | tuple[SourceConfig, ...] | None) -> tuple[SourceConfig, ...]:
    """One form for all: () for none, one source of weight 1 for a location."""
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (SourceConfig(path=given),)
