"""Settings of a build of shards: `BuildConfig`, and the plan's rules and the forms of images and clips in it."""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from pipelines.base.config import Config
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores
from pipelines.shards.format.storage import Location
from pipelines.shards.making.shard_packer import Limits
from pipelines.shards.making.shard_plan import PlanRules
from pipelines.shards.sources.labels import split_name
from pipelines.shards.sources.list_rows import ListColumns

if TYPE_CHECKING:
    from pipelines.shards.media.clip_bytes import ClipForm
    from pipelines.shards.media.image_bytes import ImageForm

__all__ = ["BuildConfig"]

Form = TypeVar("Form")

MAX_PIXELS = 178_956_970


class BuildConfig(Config):
    """Settings of a build: what to pack, and how."""

    sources: list[Location] = Field(default_factory=list)
    """Folders (searched whole), images, videos, lists (csv, tsv, jsonl, parquet, txt), tars, saved Hugging Face
    datasets; local, or URLs."""
    splits: dict[str, list[Location]] = Field(default_factory=dict)
    """More sources by the split that all of each goes into: {train: DIR1, val: [DIR2, DIR3]}. It wins over folders and
    columns of splits."""
    out: Location
    """Folder of the shards, made if it is not there; or a URL that can be written to."""
    val: str = "none"
    """Validation split: "none"; "every:N", every N-th item of a class in the order of the sources, starting with the
    first; "hash:P", a share P (0 to 1) by hash of the key. A video is whole in one split. A source's own split wins,
    but where its folders are train and test without val, `val` is taken from train."""
    labels: Literal["auto", "off"] = "auto"
    """"auto": classes from a list's or dataset's label column, from tars, or from folders: the first level that
    branches names them. "off": none."""
    shuffle: bool = True
    """Order the samples by the hash of their key, so that a shard mixes classes; else by key."""
    samples_per_shard: int = Field(default=1000, ge=1)
    """Most samples of a shard. Fewer makes more files; many more makes reading in parallel coarser."""
    max_shard_mib: float = Field(default=256.0, gt=0)
    """A shard ends with the sample that takes it to about this size; sizes after encoding are estimates."""
    check: Literal["header", "decode"] = "decode"
    """Images: "decode" each once; or "header", structure and size only, which misses damage inside."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are rejected by their header, before they are decoded."""
    short_side_px: int | None = Field(default=None, ge=1)
    """Shrink larger images to this short side and encode them anew; None keeps all bytes as they are."""
    image_quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality where an image must be encoded anew. 95 costs about twice the bytes of 85."""
    orientation: Literal["record", "apply"] = "record"
    """EXIF orientation: "record" keeps the bytes and notes it; "apply" turns the pixels and encodes them anew."""
    num_frames: int = Field(default=10, ge=1)
    """Frames of a clip."""
    fps: float = Field(default=24.0, ge=0.01, le=240)
    """Frames per second of a clip, at most: the frame nearest in time is taken, and a slower video keeps its own rate.
    On DAVIS, motion masks of frames 1/24 s apart have a mean IoU of 0.74, of frames 1/12 s apart 0.70."""
    clip_stride_s: float | None = Field(default=None, gt=0)
    """From the start of a clip to the next one's; None: the length of a clip. Half of it gives twice the clips."""
    clip_short_side_px: int = Field(default=256, ge=16)
    """Short side of stored clips; smaller video is not enlarged. Bytes and decode time grow with its square."""
    codec: Literal["mjpeg", "vp9"] = "mjpeg"
    """MJPEG decodes 1.6 times as fast as VP9 and takes twice the bytes (measured)."""
    clip_quality: int | None = None
    """Quantizer of the codec: 1 to 31 for MJPEG (None: 4), 0 to 63 for VP9 (None: 24). Larger is fewer bytes."""
    max_repeat_ratio: float = Field(default=0.1, ge=0, le=1)
    """A clip is dropped if more than this share of its frames repeat the one before (video of varying rate)."""
    min_motion: float = Field(default=0.0, ge=0)
    """Clips with less motion are dropped, in gray levels between frames; 0 keeps all, 0.3 drops still pictures."""
    cut_threshold: float | None = Field(default=1.2, gt=0)
    """No clip spans a shot cut. Smaller finds more cuts, and takes more fast motion for one; None looks for none."""
    path_column: str | None = None
    """Lists: the column with paths or URLs; None takes the first of path, file, filename, image, url and the like."""
    label_column: str | None = None
    """Lists and datasets: the column with class names; None takes label, class and the like, if there is one."""
    split_column: str | None = None
    """Lists: the column with split names; None takes split, if there is one."""
    key_column: str | None = None
    """Lists: the column with sample keys; None takes key, else keys are made from paths."""
    max_reject_ratio: float = Field(default=0.5, ge=0, le=1)
    """The build stops when more than this share of the items cannot be used."""
    overwrite: bool = False
    """Replace a finished build of other sources or settings in `out`."""
    num_workers: int = Field(default=0, ge=0)
    """Worker processes on this machine; 0 is one per core, and one for those that wait for the disk. Each holds a few
    decoded images or clips."""
    engine: Literal["local", "ray"] = "local"
    """"ray": one task per shard on a cluster, every node of which sees sources and `out` under the same names."""

    @field_validator("splits", mode="before")
    @classmethod
    def _check_splits(cls, value: Any) -> Any:
        """Make a list of a single location, and the split's name that of shards. Raises ValueError."""
        # Left to pydantic, whose message names the type that is allowed.
        if not isinstance(value, Mapping):
            return value
        # valid and validation are one split: their sources go together.
        splits: dict[str, list[Any]] = {}
        for name, given in value.items():
            split = split_name(name)
            if split is None:
                raise ValueError(f"{name!r} is no name of a split; need one word, such as train or val")
            splits.setdefault(split, []).extend(given if isinstance(given, list | tuple) else [given])
        return splits

    @model_validator(mode="after")
    def _check_sources(self) -> "BuildConfig":
        if not self.sources and not any(self.splits.values()):
            raise ValueError("no source given; sources or splits needs at least one")
        return self

    @field_validator("val")
    @classmethod
    def _check_val(cls, value: str) -> str:
        name, _, number = value.partition(":")
        is_every = name == "every" and re.fullmatch(r"\d{1,9}", number) and int(number) >= 2
        is_hash = name == "hash" and re.fullmatch(r"0?\.\d+", number) and 0 < float(number) < 1
        if not (value == "none" or is_every or is_hash):
            raise ValueError('need "none", "every:N" with N of at least 2, or "hash:P" with P between 0 and 1')
        return value

    def columns(self) -> ListColumns:
        """Return the names of columns in lists and datasets."""
        return ListColumns(path=self.path_column, label=self.label_column, split=self.split_column, key=self.key_column)

    def rules(self) -> PlanRules:
        """Return how the items become shards."""
        return PlanRules(
            shuffle=self.shuffle,
            val=self.val,
            limits=Limits(max_samples=self.samples_per_shard, max_bytes=math.ceil(self.max_shard_mib * 2**20)),
            num_frames=self.num_frames,
            fps=self.fps,
            clip_stride_s=self.clip_stride_s,
            clip_short_side_px=self.clip_short_side_px,
            codec=self.codec,
        )

    def image_form(self) -> "ImageForm":
        """Return how images are checked and stored. Raises UsageError."""
        from pipelines.shards.media.image_bytes import (
            ImageForm,  # imports OpenCV, which the command line does not wait for
        )

        return _form(
            ImageForm,
            check=self.check,
            max_pixels=self.max_pixels,
            short_side_px=self.short_side_px,
            quality=self.image_quality,
            orientation=self.orientation,
        )

    def clip_form(self) -> "ClipForm":
        """Return what a clip looks like. Raises UsageError."""
        from pipelines.shards.media.clip_bytes import ClipForm

        return _form(
            ClipForm,
            num_frames=self.num_frames,
            fps=self.fps,
            stride_s=self.clip_stride_s,
            short_side_px=self.clip_short_side_px,
            codec=self.codec,
            quality=self.clip_quality,
            max_repeat_ratio=self.max_repeat_ratio,
            min_motion=self.min_motion,
            cut_threshold=self.cut_threshold,
        )

    def num_processes(self) -> int:
        """Return the number of worker processes that compute at a time."""
        return self.num_workers or num_cores()


def _form(kind: Callable[..., Form], **values: Any) -> Form:
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(f"shards build: {error}.") from error
