"""Config of the sources of one kind of sample: one folder of shards, or several with weights.

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
    """Folder or URL of shards. A folder that is listed twice is read in two different orders."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Share of the samples, relative to the weights of the other sources; its number of samples does not matter. A
    small source with a large weight is repeated often."""


def _parsed(value: Any) -> Any:
    """Parse a list into a tuple of SourceConfig, anything else into a location.

    Raises ValidationError or ValueError.
    """
    if not isinstance(value, list | tuple):
        return as_location(value)
    if not value:
        raise ValueError("an empty list; give a folder of shards, or at least one {path: ..., weight: ...}")
    # Every item is tried, so that one message lists all problems of the list.
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
    """Return the error with the list index in its place, so that the message names `images.1.weight`."""
    place = (index, *item["loc"])
    return InitErrorDetails(type=item["type"], loc=place, input=item["input"], ctx=item.get("ctx", {}))


Sources = Annotated[Location | tuple[SourceConfig, ...], BeforeValidator(_parsed)]
"""A field of a config: one location, or several with weights."""


def as_sources(given: Location | tuple[SourceConfig, ...] | None) -> tuple[SourceConfig, ...]:
    """Return the sources as a tuple: () for none, one source of weight 1 for a single location."""
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (SourceConfig(path=given),)
