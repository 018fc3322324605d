"""NYUv2's labelled pairs: nyu_depth_v2_labeled.mat (HDF5) and splits.mat in, the usual 795 train and 654 test out.

Depths are the in-painted ones that the literature uses, in meters, registered to the images of 640 x 480.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import io

from benchmarks.evaluations.depth.pair import DepthSplit, Pair
from pipelines.base.errors import DataError, UsageError

__all__ = ["NYU_NEEDS", "is_nyu", "open_nyu"]

NYU_FILES = ("nyu_depth_v2_labeled.mat", "splits.mat")
SOURCES = {
    NYU_FILES[0]: "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat (2.8 GB)",
    NYU_FILES[1]: "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat",
}
NYU_NEEDS = f"NYUv2: a folder with {' and '.join(SOURCES.values())}, 795 train and 654 test pairs"


def is_nyu(data: Path) -> bool:
    """Return whether a folder has one of NYUv2's two files."""
    return any((data / name).is_file() for name in NYU_FILES)


def open_nyu(data: Path, splits: Sequence[str]) -> list[DepthSplit]:
    """Return the splits "train" and "test" of a folder with both files. Raises UsageError or DataError."""
    for name in NYU_FILES:
        if not (data / name).is_file():
            raise UsageError(f"{data}: has no {name}. Download {SOURCES[name]} into it.")
    rows_of = _split_rows(data / NYU_FILES[1])
    if unknown := [split for split in splits if split not in rows_of]:
        raise UsageError(f"{data}: NYUv2 has no split {unknown[0]}. Allowed: {', '.join(rows_of)}.")
    file = _Pairs(data / NYU_FILES[0])
    opened = []
    for split in splits:
        rows = rows_of[split]
        if not rows or max(rows) >= file.num_pairs or min(rows) < 0:
            raise DataError(
                f"{data}: splits.mat names pairs {min(rows, default=0) + 1} to {max(rows, default=-1) + 1} of split "
                f"{split}; {NYU_FILES[0]} has 1 to {file.num_pairs}. Download both files again."
            )
        opened.append(file.split(rows))
    return opened


def _split_rows(path: Path) -> dict[str, list[int]]:
    """Return the rows, from 0, of both splits."""
    try:
        content: dict[str, Any] = io.loadmat(str(path))
        # Matlab counts from 1.
        return {name: (content[f"{name}Ndxs"].ravel().astype(int) - 1).tolist() for name in ("train", "test")}
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: cannot read trainNdxs and testNdxs from it ({error}). Download it again.") from error


class _Pairs:
    """The open .mat file. Pairs are read one at a time: all 1449 images and depths are 2.8 GB."""

    def __init__(self, path: Path) -> None:
        try:
            file = h5py.File(path, "r")
            # Matlab stores columns first: (N, 3, W, H) and (N, W, H).
            self._images, self._depths = file["images"], file["depths"]
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: cannot read images and depths from it ({error}). Download it again.") from error
        self.num_pairs = len(self._depths)
        if len(self._images) != self.num_pairs or self._images.shape[2:] != self._depths.shape[1:]:
            raise DataError(
                f"{path}: images {self._images.shape} do not match depths {self._depths.shape}. Download it again."
            )
        # One reader at a time: HDF5 files may not be read by several threads at once.
        self._lock = threading.Lock()

    def split(self, rows: Sequence[int]) -> DepthSplit:
        def read(index: int) -> Pair:
            with self._lock:
                image_3WH, depth_WH = self._images[rows[index]], self._depths[rows[index]]
            rgb_HW3 = np.ascontiguousarray(image_3WH.transpose(2, 1, 0), dtype=np.uint8)
            return Pair(rgb_HW3=rgb_HW3, depth_HW=np.ascontiguousarray(depth_WH.T, dtype=np.float32))

        return DepthSplit(names=tuple(f"pair {row + 1}" for row in rows), read=read)
