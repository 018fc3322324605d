"""How fast motion segmentation's batches are made, how good their masks are, and both for how it is usually done.

    python -m benchmarks.studies.throughput.clips --photos DIR --cutouts DIR --out clips.json
    python -m benchmarks.studies.throughput.clips --shards DIR --out clips.json

Clips are 10 frames, stored as shards store them (MJPEG, short side 256 px), and shown at 240 x 320. With --photos and
--cutouts (a folder of pictures; a folder of PNGs with alpha) they are composites: real pixels in synthetic composition,
whose masks are known exactly, so the same record tells how fast and how good. With --shards they are the folder's own
and there is nothing to compare masks with.

Cut-outs are split, not composites: everything was tuned on those of even number and photos of the first half, and the
record is of the others, unless --split tuning. Every way starts at encoded bytes and has the same threads. Before
timing, the masks must not depend on the number of threads, or on whether those are processes; all ways take turns
within a repeat.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.gpu.gpu_check import TimedWork, Timing, time_together
from benchmarks.studies.throughput.clip_workers import NAME, ClipWorkers
from benchmarks.studies.throughput.composites import cell_means, iou, random_composite
from benchmarks.studies.throughput.offline_motion import OfflineWay, cells_moving, residual_px
from pipelines.decode.base import thread_count
from pipelines.decode.opencv import OpenCVBackend
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.media.clip_bytes import ClipForm, encode_clip
from pipelines.targets.motion.flow import DisFlow, EngineName, FarnebackFlow
from pipelines.tasks.base import CanvasSpec
from pipelines.tasks.motion_segmentation import MotionSegmentation, MotionSegmentationConfig

__all__ = ["Clips", "main", "offline_ways", "quality_of"]

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Views = Sequence[memoryview]

CANVAS = CanvasSpec()
STORED_SIZE = (256, 342)
CAMERAS = ("all", "shift", "rotation", "zoom")
ENGINES: tuple[EngineName, ...] = ("lucas_kanade", "dis", "farneback")
THRESHOLDS_PX = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NOTE = "composites: real pixels in synthetic composition; split by cut-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Encoded clips, and the cells that move in each (h, w), where that is known."""

    encoded: tuple[memoryview, ...]
    moving: tuple[Bools, ...]


def made_clips(
    photos: Sequence[Path], cutouts: Sequence[Path], kind: str, num_clips: int, split: int, *, with_object: bool
) -> Clips:
    """Composites of the given photos and cut-outs: the same ones every time. `split` 0 is tuning, 1 held out."""
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
    """RGB, or RGBA where there is alpha."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SystemExit(f"{path}: not a picture; give a folder that holds nothing else.")
    code = cv2.COLOR_BGRA2RGBA if image.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code), np.uint8)


def shard_clips(folder: Path, num_clips: int) -> Clips:
    table = load_manifest(folder).select("clip", "train")
    reader = SampleReader(table)
    return Clips(encoded=tuple(reader.read(row) for row in range(min(num_clips, len(table)))), moving=())


def decode_only(encoded: Views, pool: ThreadPoolExecutor) -> None:
    """Every frame decoded, nothing made of it: the limit of any way that looks at every frame."""
    list(pool.map(_decode, encoded))


def _decode(encoded: memoryview) -> None:
    with av.open(io.BytesIO(encoded), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for _ in container.decode(stream):
            pass


def color_clips(backend: Any, encoded: Views) -> torch.Tensor:
    """uint8 (B, T, 240, 320, 3), what any other way starts from."""
    no_flips, size = np.zeros(len(encoded), np.bool_), (CANVAS.clip_height_px, CANVAS.clip_width_px)
    return torch.as_tensor(backend.clips(encoded, no_flips, CANVAS.num_frames, *size).pixels)


def our_batch(task: MotionSegmentation, backend: OpenCVBackend, encoded: Views) -> Any:
    """The task's batch, as the pipeline makes it."""
    no_flips, size = np.zeros(len(encoded), np.bool_), (CANVAS.clip_height_px, CANVAS.clip_width_px)
    planes = backend.clip_planes(encoded, no_flips, CANVAS.num_frames, *size).pixels
    return task.make(planes, {}, [str(index) for index in range(len(encoded))])


def our_task(engine: EngineName, num_threads: int) -> MotionSegmentation:
    """Nothing is remembered, so that every repeat labels anew."""
    return MotionSegmentation(
        MotionSegmentationConfig(engine=engine, num_threads=num_threads, remembered_clips=0), CANVAS
    )


def offline_ways() -> dict[str, Callable[[], OfflineWay]]:
    """Makers, as an engine serves one thread at a time."""
    return {
        "farneback, full size, homography a pair": lambda: OfflineWay(engine=FarnebackFlow(), shrink=1),
        "dis fast, half size, homography a pair": lambda: OfflineWay(engine=DisFlow("fast"), shrink=2),
    }


def offline_residuals(
    make_way: Callable[[], OfflineWay], backend: OpenCVBackend, encoded: Views, pool: ThreadPoolExecutor
) -> list[npt.NDArray[np.float32]]:
    clips = color_clips(backend, encoded).numpy()
    return list(pool.map(lambda clip: residual_px(make_way(), clip), clips))


def quality_of(masks: Sequence[Bools], expected: Sequence[Bools], known: Sequence[Bools] = ()) -> dict[str, float]:
    """Mean IoU of cells, of all and of those with weight; the share of cells that are wrongly foreground."""
    ious = [iou(mask, wanted) for mask, wanted in zip(masks, expected, strict=True)]
    false_ratio = statistics.mean(float((mask & ~wanted).mean()) for mask, wanted in zip(masks, expected, strict=True))
    found = {
        "num_clips": len(ious),
        "mean_iou": statistics.mean(ious),
        "mean_iou_ci95_half": 1.96 * float(np.std(ious, ddof=1)) / len(ious) ** 0.5,
        "median_iou": statistics.median(ious),
        "false_foreground_ratio": false_ratio,
    }
    if known:
        trusted = zip(masks, expected, known, strict=True)
        found["mean_iou_where_weight_is_1"] = statistics.mean(iou(m & k, e & k) for m, e, k in trusted)
        found["weight_ratio"] = statistics.mean(float(k.mean()) for k in known)
    return found


def qualities(
    sets: Mapping[str, Clips], tuning: Clips, backend: OpenCVBackend, pool: ThreadPoolExecutor, num_threads: int
) -> Iterator[dict[str, Any]]:
    """A row for every way and set."""
    for engine in ENGINES:
        task = our_task(engine, num_threads)
        for name, clips in sets.items():
            batch = our_batch(task, backend, clips.encoded)
            masks, known = batch.target["moving"].numpy() > 0, batch.weight.numpy() > 0
            found = quality_of(list(masks), clips.moving, list(known))
            yield {"way": f"fourfold, {engine}", "clips": name, **found}
    for way_name, make_way in offline_ways().items():
        threshold_px = _best_threshold(offline_residuals(make_way, backend, tuning.encoded, pool), tuning.moving)
        for name, clips in sets.items():
            residuals = offline_residuals(make_way, backend, clips.encoded, pool)
            found = quality_of([cells_moving(one, threshold_px) for one in residuals], clips.moving)
            yield {"way": way_name, "clips": name, "threshold_px": threshold_px, **found}


def _best_threshold(residuals: Sequence[npt.NDArray[np.float32]], expected: Sequence[Bools]) -> float:
    def mean_iou(threshold_px: float) -> float:
        masks = [cells_moving(one, threshold_px) for one in residuals]
        return statistics.mean(iou(mask, wanted) for mask, wanted in zip(masks, expected, strict=True))

    return max(THRESHOLDS_PX, key=mean_iou)


def jobs_of(encoded: Views, backend: OpenCVBackend, pool: ThreadPoolExecutor, num_threads: int) -> dict[str, TimedWork]:
    """What is timed, by name: from encoded bytes on."""
    calls: dict[str, Callable[[], object]] = {
        "decode only": lambda: decode_only(encoded, pool),
        "decode to color clips": lambda: color_clips(backend, encoded),
    }
    for engine in ENGINES:
        task = our_task(engine, num_threads)
        calls[f"fourfold, {engine}"] = lambda task=task: our_batch(task, backend, encoded)  # type: ignore[misc]
    for name, make_way in offline_ways().items():
        calls[name] = lambda make_way=make_way: offline_residuals(make_way, backend, encoded, pool)  # type: ignore[misc]
    return {name: ("clips", len(encoded), call) for name, call in calls.items()} | _dali_job(encoded, num_threads)


def _dali_job(encoded: Views, num_threads: int) -> dict[str, TimedWork]:
    from pipelines.base.errors import UsageError
    from pipelines.decode.dali import DaliBackend

    try:
        dali = DaliBackend(device=torch.device("cpu"), num_threads=num_threads)
    except UsageError:
        return {}
    return {"decode to color clips, DALI": ("clips", len(encoded), lambda: color_clips(dali, encoded))}


def ratios_of(timings: Sequence[Timing]) -> dict[str, dict[str, float]]:
    """Every way's rate as a multiple of every limit's and of the usual way's, repeat by repeat, then the median."""
    seconds = {timing.name: np.array(timing.seconds) for timing in timings}
    bases = [name for name in seconds if not name.startswith("fourfold")]
    return {
        f"{name} / {base}": {
            "median": float(np.median(seconds[base] / seconds[name])),
            "lowest": float(np.min(seconds[base] / seconds[name])),
            "highest": float(np.max(seconds[base] / seconds[name])),
        }
        for name in seconds
        if name.startswith("fourfold")
        for base in bases
    }


def check_threads(encoded: Views, backend: OpenCVBackend, num_threads: int) -> None:
    """Stop unless the masks are the same from one thread and from all."""
    one, many = (our_batch(our_task("lucas_kanade", count), backend, encoded) for count in (1, num_threads))
    if not (torch.equal(one.target["moving"], many.target["moving"]) and torch.equal(one.weight, many.weight)):
        raise SystemExit("masks differ between 1 thread and several: nothing is timed.")


def timings_of(
    encoded: Views, backend: OpenCVBackend, pool: ThreadPoolExecutor, num_threads: int, num_repeats: int
) -> list[Timing]:
    jobs = jobs_of(encoded, backend, pool, num_threads)
    with TemporaryDirectory() as folder, ClipWorkers(Path(folder) / "shards", encoded, CANVAS, num_threads) as workers:
        expected = our_batch(our_task("lucas_kanade", num_threads), backend, encoded)
        moving, weight = workers.first_pass()
        if not (torch.equal(moving, expected.target["moving"]) and torch.equal(weight, expected.weight)):
            raise SystemExit("masks differ between threads and worker processes: nothing is timed.")
        jobs[NAME] = ("clips", len(encoded), workers.run)

        def before(name: str) -> None:
            workers.settle()
            # Once without being timed: after a pause caches are cold, which costs short jobs more than long ones.
            (workers.use_up if name == NAME else jobs[name][2])()

        return list(time_together(jobs, torch.device("cpu"), num_repeats, before=before))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    num_threads = thread_count(options.threads)
    results: dict[str, Any] = {"num_threads": num_threads}
    with ExitStack() as stack:
        backend = stack.enter_context(closing(OpenCVBackend(num_threads=num_threads)))
        pool = stack.enter_context(ThreadPoolExecutor(num_threads))
        timed = {}
        if options.shards:
            timed["shards"] = shard_clips(options.shards, options.clips)
        else:
            sets, tuning = made_sets(options)
            results["note"] = NOTE
            results["quality"] = _shown(qualities(sets, tuning, backend, pool, num_threads))
            timed = {name: sets[name] for name in ("object, camera all", "no object, camera all")}
        for name, clips in timed.items():
            check_threads(clips.encoded[:8], backend, num_threads)
            timings = timings_of(clips.encoded[: options.timed_clips], backend, pool, num_threads, options.repeats)
            results[f"timings, {name}"] = _shown(timing.row() for timing in timings)
            results[f"ratios, {name}"] = ratios_of(timings)
    return results


def made_sets(options: argparse.Namespace) -> tuple[dict[str, Clips], Clips]:
    """Held-out sets by name, and tuning clips for the thresholds of the usual ways."""
    photos, cutouts = _pictures_in(options.photos), _pictures_in(options.cutouts)
    half = len(photos) // 2
    parts = {"tuning": (photos[:half], cutouts[0::2], 0), "held_out": (photos[half:], cutouts[1::2], 1)}

    def made(split: str, kind: str, *, with_object: bool = True) -> Clips:
        some_photos, some_cutouts, number = parts[split]
        return made_clips(some_photos, some_cutouts, kind, options.clips, number, with_object=with_object)

    sets = {f"object, camera {kind}": made(options.split, kind) for kind in CAMERAS}
    alone = ("static", *CAMERAS)
    sets |= {f"no object, camera {kind}": made(options.split, kind, with_object=False) for kind in alone}
    return sets, made("tuning", "all")


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def _shown(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them; printed as they come, without the single values."""
    kept = []
    for row in rows:
        numbers = {name: value for name, value in row.items() if not isinstance(value, list)}
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()})
        kept.append(row)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of pictures")
    parser.add_argument("--cutouts", type=Path, help="folder of PNGs with alpha")
    parser.add_argument("--shards", type=Path, help="folder of shards with clips, instead of composites")
    parser.add_argument("--out", type=Path, default=Path("clips.json"))
    parser.add_argument("--split", choices=("held_out", "tuning"), default="held_out")
    parser.add_argument("--clips", type=int, default=60, help="of every set")
    parser.add_argument("--timed-clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args()
    if not options.shards and not (options.photos and options.cutouts):
        parser.error("give --shards, or --photos and --cutouts")
    cv2.setNumThreads(1)
    start_s, now = time.monotonic(), now_utc()
    results = measure(options)
    inputs = {name: str(getattr(options, name)) for name in ("photos", "cutouts", "shards") if getattr(options, name)}
    record = Record(
        kind="throughput_clips",
        key=now,
        label="motion segmentation from clips",
        date=now,
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config={name: str(value) for name, value in vars(options).items()},
        inputs=inputs,
        results=results,
    )
    write_json(options.out, asdict(record))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
