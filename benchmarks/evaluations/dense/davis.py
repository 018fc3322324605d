"""Single frames of DAVIS: JPEGImages/SEQUENCE/*.jpg beside Annotations/SEQUENCE/*.png in, masked images out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.evaluations.dense.masked_images import Mask, MaskedSplit, split_of_files
from pipelines.base.errors import DataError, UsageError

__all__ = ["DAVIS_NEEDS", "is_davis", "open_davis"]

FOLDERS = ("JPEGImages", "Annotations")
DAVIS_NEEDS = (
    "DAVIS: JPEGImages/SEQUENCE/*.jpg, Annotations/SEQUENCE/*.png. Unpack DAVIS-2017-trainval-480p.zip of "
    "https://davischallenge.org/davis2017/code.html and give the folder DAVIS, with test_split: val"
)


def is_davis(data: Path) -> bool:
    """Return whether a folder has both of DAVIS's folders, or one of them and sequences in it."""
    there = [data / name for name in FOLDERS if (data / name).is_dir()]
    return len(there) == len(FOLDERS) or any(path.is_dir() for folder in there for path in folder.iterdir())


def open_davis(data: Path, splits: Sequence[str]) -> list[MaskedSplit]:
    """Return single frames of DAVIS: object against background; whole sequences are in one split.

    SPLIT.txt names the sequences of a split, one a line, in the folder or in ImageSets; without such files every third
    sequence, by name, is "test" and the others are "train". Raises UsageError or DataError.
    """
    images, masks = (_resolution(data / name) for name in ("JPEGImages", "Annotations"))
    sequences = sorted(folder.name for folder in images.iterdir() if folder.is_dir())
    opened = []
    for split in splits:
        own = _sequences(data, split, sequences)
        if missing := [one for one in own if not (images / one).is_dir() or not (masks / one).is_dir()]:
            raise DataError(f"{data}: sequence {missing[0]} of split {split} has no images or no masks.")
        frames = [path for one in own for path in sorted((images / one).glob("*.jpg"))]
        pairs = [(path, masks / path.parent.name / f"{path.stem}.png") for path in frames]
        names = [f"{path.parent.name}/{path.stem}" for path in frames]
        groups = [path.parent.name for path in frames]
        # Instances have numbers of their own; any of them is object.
        where = f"{data}, split {split}"
        opened.append(split_of_files(names, groups, pairs, ("background", "object"), where=where, convert=_any_object))
    return opened


def _any_object(mask_HW: Mask) -> Mask:
    # 255 too: DAVIS 2016 stores its objects as white.
    return np.minimum(mask_HW, 1)


def _resolution(folder: Path) -> Path:
    """Return the folder of sequences: DAVIS has one of the resolution, such as 480p, between."""
    if not folder.is_dir():
        raise UsageError(f"{folder.parent}: has no folder {folder.name}. {DAVIS_NEEDS}.")
    return next((inner for inner in (folder / "480p", folder / "1080p") if inner.is_dir()), folder)


def _sequences(data: Path, split: str, there: Sequence[str]) -> list[str]:
    lists = [*sorted(data.glob("*.txt")), *sorted(data.glob("ImageSets/*/*.txt"))]
    for path in lists:
        if path.stem == split:
            return _listed(path)
    named = sorted({path.stem for path in lists} & {"train", "val", "test"})
    # Only where no split is listed: a third of the sequences could otherwise be in a listed train split, too.
    if not named and split in ("train", "test") and len(there) >= 2:
        return [
            name
            for index, name in enumerate(there)
            if (index % 3 == 2 or (len(there) == 2 and index)) == (split == "test")
        ]
    hint = f"Give one of {', '.join(named)}, or add" if named else "Add"
    raise UsageError(
        f"{data}: nothing says which sequences are split {split}. {hint} {split}.txt with a sequence per line."
    )


def _listed(path: Path) -> list[str]:
    """Return the sequences of a list: names, or pairs of frames as DAVIS 2016 has them (/JPEGImages/480p/NAME/...)."""
    lines = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(line).parent.name if "/" in line else line for line in lines))
