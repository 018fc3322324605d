"""Meaning of folders: names in; the level whose folders are splits, and the level that names classes, out.

Splits: the first level that branches, if all folders there are named train, val, valid, validation, dev or test.
Classes: the first level that branches below. Pictures that lie beside or above class folders have no label, and
change nothing for the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipelines.shards.sources.labels import class_name

__all__ = ["Layout", "LayoutFinder", "open_train", "split_of_folder"]

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder of this name stands for, whatever its case; None for any other name."""
    return SPLIT_FOLDERS.get(name.strip().lower())


def open_train(splits: Iterable[str]) -> bool:
    """Return whether `train` is left to the rule of `--val`: the source has no val of its own."""
    return "val" not in splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Levels of the folders in a name, from 0. None: there is no such level.

    class_level is counted without the folder of the split: 0 for both train/cat/1.jpg and cat/1.jpg.
    """

    split_level: int | None = None
    class_level: int | None = None
    is_train_open: bool = False

    def of(self, folders: Sequence[str]) -> tuple[str | None, str | None]:
        """Return label and split of an image by the folders it lies in, from the outermost."""
        if self.split_level is None and self.class_level is None:
            return None, None
        split = None
        if self.split_level is not None and len(folders) > self.split_level:
            split = split_of_folder(folders[self.split_level])
            folders = [*folders[: self.split_level], *folders[self.split_level + 1 :]]
            # Left to the rule of --val, which takes its share from train.
            if split == "train" and self.is_train_open:
                split = None
        if self.class_level is None or len(folders) <= self.class_level:
            return None, split
        return class_name(folders[self.class_level]), split


class LayoutFinder:
    """Finder of a layout: takes the folders of one image or video after the other, in constant memory."""

    def __init__(self) -> None:
        self._all, self._images = _Chain(), _Chain()
        self._candidates: dict[int, _Candidate] = {}
        self._last: tuple[Sequence[str], bool] | None = None

    def add(self, folders: Sequence[str], *, is_image: bool) -> None:
        """Add the folders of one more image or video, from the outermost."""
        if self._last == (folders, is_image):  # neighbors mostly lie in one folder
            return
        self._last = folders, is_image
        # A level is a candidate from the first folder seen at it, and is given up with the first that is no split:
        # no second look at names is needed.
        for level, name in enumerate(folders):
            if split_of_folder(name) and self._all.leads_to(folders[:level]):
                self._candidates[level] = _Candidate(prefix=list(folders[:level]))
        for level in [level for level, one in self._candidates.items() if not one.add(folders, is_image=is_image)]:
            del self._candidates[level]
        self._all.add(folders)
        if is_image:
            self._images.add(folders)

    @property
    def has_split_level(self) -> bool:
        """Whether all that was added so far may lie in folders of splits."""
        return bool(self._candidates)

    def layout(self, *, min_splits: int = 1) -> Layout:
        """Return the layout of all that was added. `train` alone is a folder like others, no split."""
        # The outermost level: train/ inside of test/ is a class like others.
        for level, one in sorted(self._candidates.items()):
            if len(one.splits) >= min_splits and one.splits != {"train"}:
                is_open = open_train(one.splits)
                return Layout(split_level=level, class_level=one.images.branch_level, is_train_open=is_open)
        return Layout(class_level=self._images.branch_level)


@dataclass(slots=True)
class _Chain:
    """The folders that all names share, down to where they branch."""

    folders: list[str] = field(default_factory=list)
    branches: bool = False

    @property
    def branch_level(self) -> int | None:
        return len(self.folders) if self.branches else None

    def add(self, folders: Sequence[str]) -> None:
        pairs = zip(self.folders, folders)  # noqa: B905  (of different length)
        num_equal = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
        if num_equal is not None:
            self.folders, self.branches = self.folders[:num_equal], True
        elif len(folders) > len(self.folders) and not self.branches:
            self.folders = list(folders)

    def leads_to(self, folders: Sequence[str]) -> bool:
        """Return whether all names so far lie above these folders."""
        return not self.branches and self.folders == list(folders[: len(self.folders)])


@dataclass(slots=True)
class _Candidate:
    """A level that may be that of the splits. `images`: the folders of images without the split's."""

    prefix: list[str]
    splits: set[str] = field(default_factory=set)
    images: _Chain = field(default_factory=_Chain)

    def add(self, folders: Sequence[str], *, is_image: bool) -> bool:
        """Return whether the level is still possible: what lies beside the folders of splits does not count."""
        level = len(self.prefix)
        if len(folders) <= level:
            return self.prefix[: len(folders)] == list(folders)
        split = split_of_folder(folders[level])
        if split is None or self.prefix != list(folders[:level]):
            return False
        self.splits.add(split)
        if is_image:
            self.images.add([*folders[:level], *folders[level + 1 :]])
        return True
