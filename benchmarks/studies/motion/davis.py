"""How well motion masks meet exact masks of real video (DAVIS 2016; Perazzi et al. 2016), and what they cost.

    python -m benchmarks.studies.motion.davis --folder DIR --out benchmarks/records/motion-davis-DATE.json

DIR holds JPEGImages/SEQUENCE/*.jpg and Annotations/SEQUENCE/*.png, with or without a folder of the resolution (480p)
between. Clips start evenly spread over a sequence; frames are `stride` apart (24 fps / stride), resized to 240 x 320.
The truth are cells of 8 x 8 px at least half covered by any object in the first frame.

mean_iou counts unknown cells as still and a clip that is left out as 0. mean_iou_known looks at known cells only. The
two baselines know everything. The mean of sequences is reported, with every sequence beside it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.harness.study import Study, say
from benchmarks.studies.motion.flow_baselines import ten_lines, two_lines
from benchmarks.studies.throughput.composites import cell_means, iou
from pipelines.base.errors import UsageError
from pipelines.decode.clip_planes import chosen_frames
from pipelines.targets.motion.dense_flow import EngineName
from pipelines.targets.motion.flow_engines import build_engine
from pipelines.targets.motion.motion_mask import mask_clip

__all__ = ["STUDY", "DavisClip", "DavisOptions", "davis_clips", "measure"]

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Mask = tuple[Bools, Bools, bool]
"""Moving cells, known cells, and whether the clip is used."""

HEIGHT, WIDTH = 240, 320
NATIVE_FPS = 24
CLIP_FRAMES = 10
"""As long as stored clips are, so that clips start where stored ones could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DavisOptions:
    """Which sequences, at which frame rates."""

    folder: Annotated[Path, "of DAVIS, with JPEGImages and Annotations in it"]
    strides: Annotated[tuple[int, ...], "frames from one to the next; 1 is 24 fps"] = (1, 2, 3)
    num_clips: Annotated[int, "of every sequence"] = 8
    sequences: Annotated[tuple[str, ...], "names; all without it"] = ()

    def __post_init__(self) -> None:
        for part in ("JPEGImages", "Annotations"):
            if not (self.folder / part).is_dir():
                raise UsageError(f"{self.folder}: holds no folder {part}; give the folder of DAVIS that has both.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DavisClip:
    """frames: uint8 RGB (T, 240, 320, 3), those that masks are computed from. truth: bool (30, 40)."""

    sequence: str
    frames: Pixels
    truth: Bools


def measure(options: DavisOptions) -> dict[str, Any]:
    """Return one row for each way and frame rate."""
    cv2.setNumThreads(1)
    ways = _ways()
    rows = []
    for stride in options.strides:
        # 1. All ways see a clip before the next is read, so that a busy machine slows all of them.
        found: dict[str, dict[str, list[dict[str, float]]]] = {way: {} for way in ways}
        for clip in davis_clips(options, stride):
            for way, mask in ways.items():
                found[way].setdefault(clip.sequence, []).append(_scores(mask, clip))
        # 2. Then means, of sequences and of these.
        for way, of_sequence in found.items():
            rows.append({"way": way, "fps": NATIVE_FPS / stride, **_means(of_sequence)})
            say(
                str(
                    {
                        name: round(v, 4) if isinstance(v, float) else v
                        for name, v in rows[-1].items()
                        if name[:2] != "by"
                    }
                )
            )
    return {"rows": rows}


def davis_clips(options: DavisOptions, stride: int) -> Iterator[DavisClip]:
    """Yield the clips of all sequences."""
    images, annotations = (_resolution_folder(options.folder / name) for name in ("JPEGImages", "Annotations"))
    for sequence in options.sequences or sorted(path.name for path in images.iterdir() if path.is_dir()):
        paths = sorted((images / sequence).glob("*.jpg"))
        if not paths:
            raise UsageError(f"{images / sequence}: holds no .jpg. Give --sequences of this folder, or none for all.")
        last_start = max(len(paths) - 1 - (CLIP_FRAMES - 1) * stride, 0)
        for start in np.linspace(0, last_start, options.num_clips).round().astype(int).tolist():
            chosen = [paths[min(start + index * stride, len(paths) - 1)] for index in chosen_frames(CLIP_FRAMES)]
            frames = np.stack([_resized(_read(path, cv2.IMREAD_COLOR_RGB)) for path in chosen])
            objects = _read(annotations / sequence / f"{paths[start].stem}.png", cv2.IMREAD_GRAYSCALE) > 0
            truth = cell_means(_resized(objects.astype(np.float32))) >= 0.5
            yield DavisClip(sequence=sequence, frames=frames, truth=truth)


def _resolution_folder(folder: Path) -> Path:
    """Return JPEGImages/480p where there is one, as in the published archive."""
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _read(path: Path, flags: int) -> Pixels:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise UsageError(f"{path}: missing or damaged; unpack DAVIS anew.")
    return np.asarray(image, np.uint8)


def _resized(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def _ways() -> dict[str, Callable[[Pixels], Mask]]:
    """Return ways from frames (T, H, W, 3) to a mask."""
    engines: tuple[EngineName, ...] = ("dis", "farneback")
    ours = {f"fourfold, {name}": _our_way(name) for name in engines}
    return ours | {"two lines: DIS, MAGSAC, Otsu": _all_known(two_lines), "ten lines: GrabCut": _all_known(ten_lines)}


def _our_way(name: EngineName) -> Callable[[Pixels], Mask]:
    engine = build_engine(name)

    def mask(frames: Pixels) -> Mask:
        gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
        found = mask_clip(gray, np.ascontiguousarray(frames[0].transpose(2, 0, 1)), engine)
        return found.moving, found.is_known, found.verdict == "usable"

    return mask


def _all_known(way: Callable[[Pixels], Bools]) -> Callable[[Pixels], Mask]:
    def mask(frames: Pixels) -> Mask:
        moving = way(frames)
        return moving, np.ones_like(moving), True

    return mask


def _scores(mask: Callable[[Pixels], Mask], clip: DavisClip) -> dict[str, float]:
    """Return what one clip's mask is worth, and the CPU time of its thread."""
    start_s = time.thread_time()
    moving, known, is_used = mask(clip.frames)
    cpu_ms = 1000 * (time.thread_time() - start_s)
    return {
        "mean_iou": iou(moving & known, clip.truth) if is_used else 0.0,
        "mean_iou_known": iou(moving & known, clip.truth & known) if is_used else 0.0,
        "known_ratio": float(known.mean()) if is_used else 0.0,
        "false_foreground_ratio": float((moving & known & ~clip.truth).mean()),
        "left_out_ratio": float(not is_used),
        "cpu_ms": cpu_ms,
    }


def _means(of_sequence: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Return means over sequences, and "by_sequence"; of the CPU time medians, as other work disturbs single clips."""

    def mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
        return (statistics.median if name == "cpu_ms" else statistics.mean)(row[name] for row in rows)

    names = [*next(iter(of_sequence.values()))[0]]
    by_sequence = {sequence: {name: mean(rows, name) for name in names} for sequence, rows in of_sequence.items()}
    whole = {name: mean([*by_sequence.values()], name) for name in names}
    return {**whole, "num_clips": sum(map(len, of_sequence.values())), "by_sequence": by_sequence}


STUDY = Study(
    module="benchmarks.studies.motion.davis",
    kind="motion_davis",
    label="motion masks on DAVIS",
    description=__doc__,
    options=DavisOptions,
    measure=measure,
    packages=("opencv-python-headless", "numba"),
)

if __name__ == "__main__":
    STUDY.main()
