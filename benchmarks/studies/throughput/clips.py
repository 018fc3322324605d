"""How fast motion segmentation's batches are made, how good their masks are, and both for how it is usually done.

    python -m benchmarks.studies.throughput.clips --photos DIR --cutouts DIR --out clips.json
    python -m benchmarks.studies.throughput.clips --shards DIR --out clips.json
    python -m benchmarks.studies.throughput.clips --photos DIR --cutouts DIR --parts speed --out clips.json

Clips are 10 frames, stored as shards store them (MJPEG, short side 256 px), and shown at 240 x 320. With --photos and
--cutouts (a folder of pictures; a folder of PNGs with alpha) they are composites: real pixels in synthetic composition,
whose masks are known exactly. With --shards they are the folder's own, and there are no masks to compare with.

Cut-outs are split, not composites: everything was tuned on those of even number and photos of the first half. The
record is of the others, unless --split tuning. mean_iou counts unknown cells as still, as the study of DAVIS does.
Where an object covers no cell by half, it is 0 as soon as any cell is found.

--parts speed times our masks in threads and in worker processes against bare decoding, and nothing else. --parts masks
compares our masks with the exact ones. Every way starts at encoded bytes and has the same threads. Before timing, the
masks must not depend on the number of threads, or on whether those are processes.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness.spread import ratio_spread
from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import Job, Timed, time_in_turns
from benchmarks.studies.throughput.composites import cell_means, iou, random_composite
from benchmarks.studies.throughput.motion_ways import (
    CANVAS,
    OFFLINE_WAYS,
    ClipWorkers,
    cells_moving,
    color_clips,
    decode_only,
    offline_residuals,
    our_batch,
)
from pipelines.base.errors import DataError, UsageError
from pipelines.decode.base import thread_count
from pipelines.decode.opencv import OpenCVBackend
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.media.clip_bytes import ClipForm, encode_clip
from pipelines.targets.motion.dense_flow import EngineName

__all__ = ["STUDY", "Clips", "ClipsOptions", "made_sets", "quality_of"]

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

STORED_SIZE = (256, 342)
CAMERAS = ("all", "shift", "rotation", "zoom")
ENGINES: tuple[EngineName, ...] = ("dis", "farneback")
WORKERS = "fourfold, dis, workers"
THRESHOLDS_PX = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NUM_CHECKED = 8
TIMED_SETS = ("object, camera all", "no object, camera all")
SPEED_WAYS = ("decode only", "fourfold, dis", WORKERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsOptions:
    """Which clips, and how often they are timed."""

    photos: Annotated[Path | None, "folder of pictures"] = None
    cutouts: Annotated[Path | None, "folder of PNGs with alpha"] = None
    shards: Annotated[Path | None, "folder of shards with clips, instead of composites"] = None
    split: Annotated[Literal["held_out", "tuning"], "which cut-outs and photos"] = "held_out"
    parts: Annotated[Literal["all", "masks", "speed"], "all compares with other ways, too"] = "all"
    num_clips: Annotated[int, "of every set"] = 60
    num_timed_clips: Annotated[int, "of every set that is timed"] = 32
    num_repeats: Annotated[int, "of every way; fewer than 6 give no interval"] = 7
    num_threads: Annotated[int, "0: all cores"] = 0

    def __post_init__(self) -> None:
        if not self.shards and not (self.photos and self.cutouts):
            raise UsageError("nothing to read: give --shards, or --photos and --cutouts.")
        if self.shards and self.parts == "masks":
            raise UsageError("parts = masks: clips of shards have no exact masks; give --photos and --cutouts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Encoded clips, and the cells that move in each, bool (h, w), where that is known."""

    encoded: tuple[memoryview, ...]
    moving: tuple[Bools, ...] = ()


def measure(options: ClipsOptions) -> dict[str, Any]:
    """Return qualities of the masks where they are known, then timings and ratios."""
    cv2.setNumThreads(1)
    num_threads = thread_count(options.num_threads)
    results: dict[str, Any] = {"num_threads": num_threads}
    with ExitStack() as stack:
        backend = stack.enter_context(closing(OpenCVBackend(num_threads=num_threads)))
        pool = stack.enter_context(ThreadPoolExecutor(num_threads))
        if options.shards:
            timed = {"shards": shard_clips(options.shards, options.num_clips)}
        else:
            sets = made_sets(options)
            results["note"] = "composites: real pixels in synthetic composition; split by cut-out"
            if options.parts != "speed":
                results["quality"] = list(our_qualities(sets, backend, num_threads, _engines(options)))
            if options.parts == "all":
                tuning = _made(options, "tuning", "all")
                results["quality"] += offline_qualities(sets, tuning, backend, pool)
            timed = {name: sets[name] for name in TIMED_SETS} if options.parts != "masks" else {}
        for name, clips in timed.items():
            encoded = clips.encoded[: options.num_timed_clips]
            found = time_ways(encoded, backend, pool, num_threads, options)
            results[f"timings, {name}"] = [one.row() for one in found.values()]
            results[f"ratios, {name}"] = ratios_of(found)
    return results


def _engines(options: ClipsOptions) -> tuple[EngineName, ...]:
    return ENGINES if options.parts == "all" else ENGINES[:1]


def made_sets(options: ClipsOptions) -> dict[str, Clips]:
    """Return sets of composites by name: those that are timed, or all."""
    names = {f"object, camera {kind}": (kind, True) for kind in CAMERAS}
    names |= {f"no object, camera {kind}": (kind, False) for kind in ("static", *CAMERAS)}
    wanted = TIMED_SETS if options.parts == "speed" else (*names,)
    return {name: _made(options, options.split, names[name][0], with_object=names[name][1]) for name in wanted}


def _made(options: ClipsOptions, split: str, kind: str, *, with_object: bool = True) -> Clips:
    assert options.photos is not None
    assert options.cutouts is not None
    photos, cutouts = _pictures_in(options.photos), _pictures_in(options.cutouts)
    half = len(photos) // 2
    parts = {"tuning": (photos[:half], cutouts[0::2], 0), "held_out": (photos[half:], cutouts[1::2], 1)}
    num_clips = min(options.num_clips, options.num_timed_clips) if options.parts == "speed" else options.num_clips
    return made_clips(*parts[split], kind=kind, num_clips=num_clips, with_object=with_object)


def made_clips(
    photos: Sequence[Path], cutouts: Sequence[Path], split: int, *, kind: str, num_clips: int, with_object: bool
) -> Clips:
    """Return composites of the given pictures, the same ones every time. `split`: 0 is tuning, 1 held out."""
    encoded, moving = [], []
    height, width = STORED_SIZE
    for index in range(num_clips):
        rng = np.random.default_rng([index, split, len(kind)])
        cutout = _picture(cutouts[int(rng.integers(len(cutouts)))]) if with_object else None
        background = _picture(photos[index % len(photos)])
        made = random_composite(background, cutout, rng, kind=kind, height=height, width=width)
        frames = [av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="yuvj420p") for frame in made.clip]
        encoded.append(memoryview(encode_clip(frames, ClipForm())))
        shown = cv2.resize(made.coverage, (CANVAS.clip_width_px, CANVAS.clip_height_px), interpolation=cv2.INTER_AREA)
        moving.append(np.asarray(cell_means(shown) >= 0.5))
    return Clips(encoded=tuple(encoded), moving=tuple(moving))


def _picture(path: Path) -> Pixels:
    """Return RGB, or RGBA where there is alpha."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UsageError(f"{path}: not a picture; give a folder that holds nothing else.")
    code = cv2.COLOR_BGRA2RGBA if image.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code), np.uint8)


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix in (".jpg", ".png"))
    if len(found) < 2:
        raise UsageError(f"{folder}: {len(found)} pictures (.jpg, .png) in it, at least 2 needed, for two halves.")
    return found


def shard_clips(folder: Path, num_clips: int) -> Clips:
    table = load_manifest(folder).select("clip", "train")
    reader = SampleReader(table)
    return Clips(encoded=tuple(reader.read(row) for row in range(min(num_clips, len(table)))))


def our_qualities(
    sets: Mapping[str, Clips], backend: OpenCVBackend, num_threads: int, engines: Sequence[EngineName]
) -> Iterator[dict[str, Any]]:
    """Yield a row for every engine and set."""
    for engine in engines:
        for name, clips in sets.items():
            batch = our_batch(engine, num_threads, backend, clips.encoded)
            masks, known = batch.target["moving"].numpy() > 0, batch.weight.numpy() > 0
            found = quality_of(list(masks), clips.moving, list(known))
            yield _shown({"way": f"fourfold, {engine}", "clips": name, **found})


def offline_qualities(
    sets: Mapping[str, Clips], tuning: Clips, backend: OpenCVBackend, pool: ThreadPoolExecutor
) -> Iterator[dict[str, Any]]:
    """Yield a row for every usual way and set. The usual ways get the threshold that is best for the tuning clips."""
    for way in OFFLINE_WAYS:
        threshold_px = _best_threshold(offline_residuals(way, backend, tuning.encoded, pool), tuning.moving)
        for name, clips in sets.items():
            residuals = offline_residuals(way, backend, clips.encoded, pool)
            found = quality_of([cells_moving(one, threshold_px) for one in residuals], clips.moving)
            yield _shown({"way": way, "clips": name, "threshold_px": threshold_px, **found})


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    say(str({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}))
    return row


def quality_of(masks: Sequence[Bools], expected: Sequence[Bools], known: Sequence[Bools] = ()) -> dict[str, float]:
    """Return the mean IoU of cells and the share of cells wrongly called foreground.

    known: cells with weight; without it, all. Unknown cells count as still, as in the study of DAVIS. The IoU of masks
    alone, of cells with weight, and of clips with any moving cell follow.
    """
    known = known or [np.ones_like(mask) for mask in masks]
    found = [mask & sure for mask, sure in zip(masks, known, strict=True)]
    ious = _ious(found, expected)
    false_ratio = statistics.mean(float((mask & ~wanted).mean()) for mask, wanted in zip(found, expected, strict=True))
    row = {
        "num_clips": len(ious),
        "mean_iou": statistics.mean(ious),
        "median_iou": statistics.median(ious),
        "false_foreground_ratio": false_ratio,
        "mean_iou_weights_ignored": statistics.mean(_ious(masks, expected)),
        "mean_iou_where_weight_is_1": statistics.mean(
            iou(mask, wanted & sure) for mask, wanted, sure in zip(found, expected, known, strict=True)
        ),
        "weight_ratio": statistics.mean(float(sure.mean()) for sure in known),
    }
    if len(ious) > 1:
        row["mean_iou_ci95_half"] = 1.96 * float(np.std(ious, ddof=1)) / len(ious) ** 0.5
    with_cells = [value for value, wanted in zip(ious, expected, strict=True) if wanted.any()]
    if with_cells:
        row |= {
            "num_clips_with_moving_cells": len(with_cells),
            "mean_iou_with_moving_cells": statistics.mean(with_cells),
        }
    return row


def _ious(masks: Sequence[Bools], expected: Sequence[Bools]) -> list[float]:
    return [iou(mask, wanted) for mask, wanted in zip(masks, expected, strict=True)]


def _best_threshold(residuals: Sequence[npt.NDArray[np.float32]], expected: Sequence[Bools]) -> float:
    def mean_iou(threshold_px: float) -> float:
        return statistics.mean(_ious([cells_moving(one, threshold_px) for one in residuals], expected))

    return max(THRESHOLDS_PX, key=mean_iou)


def time_ways(
    encoded: Sequence[memoryview],
    backend: OpenCVBackend,
    pool: ThreadPoolExecutor,
    num_threads: int,
    options: ClipsOptions,
) -> dict[str, Timed]:
    """Time all ways, or those of `SPEED_WAYS`, from encoded bytes on.

    Raises DataError if masks depend on threads or processes.
    """
    with temporary_folder() as folder, closing(ClipWorkers(folder / "shards", encoded, num_threads)) as workers:
        # 1. Equal first: one thread, all threads, worker processes.
        some = encoded[:NUM_CHECKED]
        one, many = (our_batch("dis", count, backend, some) for count in (1, num_threads))
        _check_equal("1 thread and several", (one.target["moving"], one.weight), (many.target["moving"], many.weight))
        all_ = our_batch("dis", num_threads, backend, encoded)
        _check_equal("threads and processes", workers.first_pass(), (all_.target["moving"], all_.weight))
        # 2. Then timed, in turns.
        calls: dict[str, Callable[[], object]] = {
            "decode only": lambda: decode_only(encoded, pool),
            "decode to color clips": lambda: color_clips(backend, encoded),
            **{f"fourfold, {engine}": partial(our_batch, engine, num_threads, backend, encoded) for engine in ENGINES},
            **{way: partial(offline_residuals, way, backend, encoded, pool) for way in OFFLINE_WAYS},
            **_dali_call(encoded, num_threads),
            WORKERS: workers.run,
        }

        def prepare(name: str) -> None:
            workers.settle()
            # Once without being timed: after a pause caches are cold, which costs short jobs more than long ones.
            (workers.use_up if name == WORKERS else calls[name])()

        jobs = {
            name: Job(unit="clips", num_items=len(encoded), run=call, prepare=partial(prepare, name))
            for name, call in calls.items()
            if options.parts == "all" or name in SPEED_WAYS
        }
        return time_in_turns(jobs, options.num_repeats, report=say)


def _dali_call(encoded: Sequence[memoryview], num_threads: int) -> dict[str, Callable[[], object]]:
    from pipelines.decode.dali import DaliBackend

    try:
        dali = DaliBackend(device=torch.device("cpu"), num_threads=num_threads)
    except UsageError:
        return {}
    return {"decode to color clips, DALI": lambda: color_clips(dali, encoded)}


def _check_equal(what: str, one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> None:
    if not all(map(torch.equal, one, other)):
        raise DataError(f"masks differ between {what}: nothing is timed.")


def ratios_of(found: Mapping[str, Timed]) -> dict[str, dict[str, Any]]:
    """Return our rates as multiples of every other way's, repeat by repeat."""
    ours = [name for name in found if name.startswith("fourfold")]
    pairs = [(name, base) for name in ours for base in found if base not in ours]
    return {f"{name} / {base}": asdict(ratio_spread(found[name].per_s, found[base].per_s)) for name, base in pairs}


STUDY = Study(
    module="benchmarks.studies.throughput.clips",
    kind="throughput_clips",
    label="motion segmentation from clips",
    description=__doc__,
    options=ClipsOptions,
    measure=measure,
    packages=("av", "opencv-python-headless", "nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)

if __name__ == "__main__":
    STUDY.main()
