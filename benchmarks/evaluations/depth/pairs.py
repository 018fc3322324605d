"""Pairs of RGB and measured depth: a folder of images in, one pair at a time out; and the check of any pairs.

RGB is uint8 (H, W, 3). Depth is float32 (H, W) in meters, of the same size; 0 or NaN where it is unknown (in
16-bit files 0 or 65535). Layout: rgb/NAME.jpg|png beside depth/NAME.png of 16 bits, in train/ and test/; or in one
folder with train.txt and test.txt (a name per line), or with an index.csv of the columns name and split (and set, one
folder further up).
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.evaluations.depth.pair import DepthSplit, Pair
from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError

__all__ = ["check_depths", "is_pairs", "open_pairs"]

MOST_SHOWN = 5
SATURATED = np.iinfo(np.uint16).max


def is_pairs(data: Path, splits: Sequence[str]) -> bool:
    """Return whether a folder has pairs of images, in folders of its splits or in one."""
    folders = (data, *(data / split for split in splits))
    return any((folder / name).is_dir() for folder in folders for name in ("rgb", "depth"))


def open_pairs(data: Path, splits: Sequence[str], *, units_per_m: float) -> list[DepthSplit]:
    """Return splits of a folder of images; no pixel is read. Raises DataError."""
    return [_folder_split(data, split, units_per_m) for split in splits]


def _folder_split(data: Path, split: str, units_per_m: float) -> DepthSplit:
    folder = data / split if (data / split / "rgb").is_dir() else data
    colors, depths = (_by_stem(folder, name) for name in ("rgb", "depth"))
    names = sorted(colors) if folder != data else _listed(data, split)
    if not names:
        raise DataError(f"{data}: split {split} has no pairs.")
    if missing := [name for name in names if name not in colors or name not in depths]:
        raise DataError(
            f"{data}: {len(missing)} names of split {split} lack rgb/NAME.jpg|png or depth/NAME.png: "
            f"{', '.join(missing[:MOST_SHOWN])}. Add the files or take the names out."
        )

    def read(index: int) -> Pair:
        name = names[index]
        return Pair(rgb_HW3=read_image(colors[name]), depth_HW=_read_depth(depths[name], units_per_m))

    return DepthSplit(names=tuple(names), read=read)


def _by_stem(folder: Path, name: str) -> dict[str, Path]:
    if not (folder / name).is_dir():
        raise DataError(
            f"{folder}: has no folder {name}. Need rgb/NAME.jpg|png and depth/NAME.png of 16 bits, in train/ and test/ "
            "or in one folder with train.txt and test.txt."
        )
    found = (path for path in (folder / name).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return {path.stem: path for path in found}


def _listed(data: Path, split: str) -> list[str]:
    """Return the names of a split in a list beside the images."""
    if (listed := data / f"{split}.txt").is_file():
        return listed.read_text(encoding="utf-8").split()
    for table, own_set in ((data / "index.csv", None), (data.parent / "index.csv", data.name)):
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if own_set is None or row.get("set") == own_set]
            return [row["name"] for row in rows if row.get("split") == split and row.get("name")]
    raise DataError(f"{data}: nothing says which pairs are split {split}. Add {split}.txt with a name per line.")


def _read_depth(path: Path, units_per_m: float) -> npt.NDArray[np.float32]:
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise DataError(f"{path}: cannot be decoded. Replace the file or take its name out.")
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError(f"{path}: {stored.dtype} of shape {stored.shape}; need one channel of 16 bits.")
    depth_HW = stored.astype(np.float32) / np.float32(units_per_m)
    # 7-Scenes and others write the largest number where the sensor saw nothing.
    depth_HW[stored == SATURATED] = 0
    return depth_HW


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthStatistics:
    """Mean and standard deviation in meters over all known pixels, and the share of unknown ones (0 to 1)."""

    mean_m: float
    deviation_m: float
    unknown_ratio: float


def check_depths(split: DepthSplit, name: str, *, visit: Callable[[Pair], None] | None = None) -> DepthStatistics:
    """Read every pair once. Raises one DataError for all pairs of unequal sizes or with infinite, negative or no depth.

    Zeros and NaN count as unknown. `visit` sees every good pair.
    """
    wrong: list[str] = []
    total = squares = num_known = num_pixels = 0.0
    for index, key in enumerate(split.names):
        pair = split.read(index)
        if (problem := _problem(pair)) is not None:
            wrong.append(f"{key} ({problem})")
            continue
        known_N = pair.depth_HW[pair.depth_HW > 0].astype(np.float64)
        total, squares = total + float(known_N.sum()), squares + float(np.square(known_N).sum())
        num_known, num_pixels = num_known + known_N.size, num_pixels + pair.depth_HW.size
        if visit is not None:
            visit(pair)
    if wrong:
        raise DataError(
            f"depth: {len(wrong)} of {len(split.names)} pairs of split {name} are unfit: "
            f"{', '.join(wrong[:MOST_SHOWN])}. Mark unknown depth by 0 or NaN, and take pairs without depth out."
        )
    mean = total / num_known
    return DepthStatistics(
        mean_m=mean,
        deviation_m=max(squares / num_known - mean**2, 1e-12) ** 0.5,
        unknown_ratio=1 - num_known / num_pixels,
    )


def _problem(pair: Pair) -> str | None:
    if pair.rgb_HW3.shape[:2] != pair.depth_HW.shape:
        return f"rgb {pair.rgb_HW3.shape[:2]}, depth {pair.depth_HW.shape}"
    if np.isinf(pair.depth_HW).any():
        return "infinite depth"
    if (pair.depth_HW < 0).any():
        return "negative depth"
    return None if (pair.depth_HW > 0).any() else "no known depth"
