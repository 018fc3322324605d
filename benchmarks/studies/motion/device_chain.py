"""Motion masks by the batched chain of a device beside those of the CPU chain, on the same clips.

    python -m benchmarks.studies.motion.device_chain --davis DAVIS --photos DIR --cutouts DIR --shards DIR --out FILE

DAVIS has exact masks of real video (folders as in the study of DAVIS), --photos and --cutouts give composites with
exact masks (as in the study of clips, --split held_out), and clips of --shards have none. The batched chain runs on CPU
tensors, which gives the masks of a GPU up to rounding and nothing of its speed. equal_cells counts cells that both
chains call moving or still alike, unknown ones as still; equal_known those that both know, or both do not.
"""

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness.study import Study, say
from benchmarks.studies.motion.davis import NATIVE_FPS, DavisOptions, davis_clips
from benchmarks.studies.throughput.clips import Clips, ClipsOptions, made_sets, quality_of
from benchmarks.studies.throughput.motion_ways import batch_of_planes, clip_planes
from pipelines.base.errors import UsageError
from pipelines.decode.clip_planes import planes_of
from pipelines.decode.opencv import OpenCVBackend
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from pipelines.targets.motion.device.batched_masks import mask_clips

__all__ = ["STUDY", "ChainOptions", "MaskedClips", "compare", "measure"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """Which clips."""

    davis: Annotated[Path | None, "folder of DAVIS, with JPEGImages and Annotations in it"] = None
    photos: Annotated[Path | None, "folder of pictures, for composites"] = None
    cutouts: Annotated[Path | None, "folder of PNGs with alpha, for composites"] = None
    shards: Annotated[Path | None, "folder of shards with clips"] = None
    split: Annotated[Literal["held_out", "tuning"], "which cut-outs and photos"] = "held_out"
    strides: Annotated[tuple[int, ...], "of DAVIS, frames from one to the next; 1 is 24 fps"] = (1, 2)
    num_davis_clips: Annotated[int, "of every sequence of DAVIS"] = 8
    num_clips: Annotated[int, "of every set of composites"] = 60
    num_stored_clips: Annotated[int, "of the shards, evenly spread over them"] = 200
    batch_size: Annotated[int, "clips of a batch"] = 8

    def __post_init__(self) -> None:
        if bool(self.photos) != bool(self.cutouts):
            raise UsageError("composites need both --photos and --cutouts.")
        if not (self.davis or self.photos or self.shards):
            raise UsageError("nothing to read: give --davis, --shards, or --photos and --cutouts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedClips:
    """planes: uint8 (N, 6, H, W) of clip_planes.py. moving: exact cells, bool (h, w) each; empty if not known."""

    planes: torch.Tensor
    moving: tuple[Bools, ...] = ()


def measure(options: ChainOptions) -> Iterator[dict[str, Any]]:
    """Yield the rows so far after every set of clips."""
    cv2.setNumThreads(1)
    rows: list[dict[str, Any]] = []
    for name, clips in _sets(options):
        row = {"clips": name, **compare(clips, options.batch_size)}
        rows.append(row)
        say(_line(row))
        yield {"rows": rows}


def compare(clips: MaskedClips, batch_size: int) -> dict[str, Any]:
    """Return the share of cells that both chains make alike and, with exact masks, what each chain's are worth."""
    of_device, of_cpu = [], []
    for planes in torch.split(clips.planes, batch_size):
        masks, batch = mask_clips(planes), batch_of_planes("dis", 1, planes)
        of_device += list(zip(masks.moving.numpy(), masks.is_known.numpy(), strict=True))
        of_cpu += list(zip(batch.target["moving"].numpy() > 0, batch.weight.numpy() > 0, strict=True))
    pairs = list(zip(of_device, of_cpu, strict=True))
    row: dict[str, Any] = {
        "num_clips": len(pairs),
        "equal_cells": float(np.mean([(one & sure) == (two & known) for (one, sure), (two, known) in pairs])),
        "equal_known": float(np.mean([sure == known for (_, sure), (_, known) in pairs])),
        "num_clips_all_equal": sum(np.array_equal(one & sure, two & known) for (one, sure), (two, known) in pairs),
    }
    if clips.moving:
        for name, found in (("device", of_device), ("cpu", of_cpu)):
            row[name] = quality_of([one for one, _ in found], clips.moving, [known for _, known in found])
        row["difference"] = row["device"]["mean_iou"] - row["cpu"]["mean_iou"]
    return row


def _sets(options: ChainOptions) -> Iterator[tuple[str, MaskedClips]]:
    if options.davis:
        chosen = DavisOptions(folder=options.davis, strides=options.strides, num_clips=options.num_davis_clips)
        for stride in options.strides:
            found = list(davis_clips(chosen, stride))
            planes = planes_of(torch.from_numpy(np.stack([clip.frames for clip in found])))
            moving = tuple(np.asarray(clip.truth) for clip in found)
            yield f"DAVIS, {NATIVE_FPS / stride:g} fps", MaskedClips(planes=planes, moving=moving)
    with closing(OpenCVBackend(num_threads=1)) as backend:
        for name, clips in itertools.chain(_composites(options), _stored(options)):
            yield name, MaskedClips(planes=clip_planes(backend, clips.encoded), moving=clips.moving)


def _composites(options: ChainOptions) -> Iterator[tuple[str, Clips]]:
    if options.photos:
        made = ClipsOptions(
            photos=options.photos,
            cutouts=options.cutouts,
            split=options.split,
            parts="masks",
            num_clips=options.num_clips,
        )
        for name, clips in made_sets(made).items():
            yield f"composites, {options.split}, {name}", clips


def _stored(options: ChainOptions) -> Iterator[tuple[str, Clips]]:
    if options.shards:
        table = load_manifest(options.shards).select("clip", "train")
        reader = SampleReader(table)
        rows = np.unique(np.linspace(0, len(table) - 1, options.num_stored_clips).round().astype(int))
        yield "clips of shards", Clips(encoded=tuple(reader.read(row) for row in rows.tolist()))


def _line(row: dict[str, Any]) -> str:
    line = f"{row['clips']}: {row['equal_cells']:.2%} of cells equal, {row['equal_known']:.2%} known alike"
    for name in ("device", "cpu"):
        if name in row:
            found = row[name]
            line += f"; {name} {found['mean_iou']:.3f} / {found['mean_iou_where_weight_is_1']:.3f}"
            line += f", false {found['false_foreground_ratio']:.4f}"
    return line


STUDY = Study(
    module="benchmarks.studies.motion.device_chain",
    kind="motion_device_chain",
    label="motion masks by the batched chain and by the CPU's",
    description=__doc__,
    options=ChainOptions,
    measure=measure,
    packages=("kornia", "opencv-python-headless", "numba"),
)

if __name__ == "__main__":
    STUDY.main()
