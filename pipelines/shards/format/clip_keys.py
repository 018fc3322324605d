"""Keys of clips: the key of their video and the tick at which they start. Clips of one video are not independent."""

import re

from pipelines.shards.format.table import Kind

__all__ = ["clip_key", "source_of"]

_START = re.compile(r"_t\d{8,}(_\d+)?$")
"""The build numbers keys that two videos share: `_2` and so on."""


def clip_key(video_key: str, start_tick: int) -> str:
    """Return the key of the clip that starts at this tick of a video."""
    return f"{video_key}_t{start_tick:08d}"


def source_of(key: str, kind: Kind) -> str:
    """Return what a sample was cut from: the key of a clip's video; of an image, its own key.

    Keys that `clip_key` did not make, as those of adopted tars, are returned as they are.
    """
    return _START.sub("", key) if kind == "clip" else key
