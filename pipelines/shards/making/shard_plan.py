"""Plan of shards: which item goes into which, fixed before a byte is read, so that nothing later changes a byte.

Items come in batches, in any order, as many as there are; they get a split and a key of their own, are sorted by the
hash of the key (or by the key), and cut into shards. The result lies in a file, one record batch per shard. Memory is
bounded: some hundred thousand rows (`row_sorter.py`), and about 200 bytes per shard.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.base.errors import UsageError
from pipelines.shards.format.columns import number_column, numbers_of, text_column
from pipelines.shards.format.table import Kind
from pipelines.shards.making.item_amounts import Amount, VideoFacts, amount_of_image, amount_of_video
from pipelines.shards.making.row_sorter import RowSorter
from pipelines.shards.making.shard_packer import ClipCutter, ImageCutter, Limits, with_column
from pipelines.shards.sources.item_columns import (
    ROW_SCHEMA,
    Place,
    Places,
    items_of,
    key_hash,
    keys_of,
    pack,
    renumbered,
)
from pipelines.shards.sources.items import SourceItem

__all__ = [
    "PLAN_NAME",
    "SORT_SCHEMA",
    "ShardPlan",
    "PlanRules",
    "PlannedShard",
    "Planner",
    "ShardOutline",
    "is_val",
    "sorted_labels",
]

PLAN_NAME = "plan.arrow"
KINDS: tuple[Kind, ...] = ("image", "clip")
SORT_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        ("group", pa.int16()),
        ("hash", pa.uint64()),
        ("num_samples", pa.int32()),
        ("sample_bytes", pa.int64()),
        ("is_whole", pa.int8()),
        ("fps", pa.float64()),
    ]
)
"""Rows while they are sorted. group: number of (kind, split). num_samples: 1, or the clips of a video, estimated.
sample_bytes: what a sample takes in its tar. is_whole: 1 for a video that must not be divided. fps: of its clips, 0
for an image."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRules:
    """Rules by which items become shards. fps: of clips, at most; clip_stride_s: from one's start to the next one's.

    val: "none"; "every:N", every N-th item of a kind and class as listed, from the first; or "hash:P", a share P.
    """

    shuffle: bool
    val: str
    limits: Limits
    num_frames: int
    fps: float
    clip_stride_s: float | None
    clip_short_side_px: int
    codec: str


class ShardOutline(NamedTuple):
    """A planned shard without its rows. num_samples and num_bytes are estimates for clips."""

    name: str
    kind: Kind
    split: str
    num_items: int
    num_samples: int
    num_bytes: int
    batch_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One shard to make: rows of ROW_SCHEMA and their places. Complete in itself: it is sent to a worker."""

    name: str
    kind: Kind
    split: str
    num_samples: int
    rows: pa.RecordBatch
    places: tuple[Place, ...]

    def items(self) -> Iterator[SourceItem]:
        """Yield the items of the samples, in order; without labels and splits."""
        return items_of(self.rows, self.places, self.kind)


class ShardPlan:
    """All shards, in order: images before clips, train before val. `close` removes the file it is read from."""

    def __init__(self, path: Path, places: Places, labels: tuple[str, ...], outlines: Sequence[ShardOutline]) -> None:
        self.path, self.labels, self.outlines = path, labels, outlines
        self.num_items = sum(outline.num_items for outline in outlines)
        self.num_samples = sum(outline.num_samples for outline in outlines)
        self._places = places
        # Not mapped: what was read once would count as this process's memory.
        self._reader = pa.ipc.open_file(pa.OSFile(str(path)))

    @property
    def num_shards(self) -> int:
        return len(self.outlines)

    def shard(self, index: int) -> PlannedShard:
        outline = self.outlines[index]
        rows, places = renumbered(self._reader.get_batch(outline.batch_index), self._places.table)
        return PlannedShard(
            name=outline.name,
            kind=outline.kind,
            split=outline.split,
            num_samples=outline.num_samples,
            rows=rows,
            places=places,
        )

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


class Planner:
    """Maker of a plan from items, a context manager: leftovers in `folder` are removed, but not the plan itself.

    `probe` says for videos how long and large they are, None for one that cannot be read. num_divided: items whose
    split is decided by the rule.
    """

    def __init__(
        self, rules: PlanRules, folder: Path, probe: Callable[[Sequence[SourceItem]], Sequence[VideoFacts | None]]
    ) -> None:
        self.places = Places()
        self.num_divided = 0
        self._rules, self._folder, self._probe = rules, folder, probe
        self._sorter = RowSorter(folder, "hash" if rules.shuffle else "key")
        self._groups: dict[tuple[Kind, str], int] = {}
        self._label_numbers: dict[str, int] = {}
        self._seen: Counter[tuple[Kind, str | None]] = Counter()

    def __enter__(self) -> "Planner":
        return self

    def __exit__(self, *error: object) -> None:
        self._sorter.__exit__(*error)

    @property
    def num_items(self) -> int:
        return self._sorter.num_rows

    def add(self, items: Sequence[SourceItem]) -> int:
        """Add items. Returns their number. Raises UsageError (a split's name) or OSError (no room on the disk)."""
        # 1. Keys, labels and places as numbers: a row of text takes five times the memory.
        hashes = np.fromiter((key_hash(item.key) for item in items), np.uint64, len(items))
        numbers = self._label_numbers
        labels = [-1 if item.label is None else numbers.setdefault(item.label, len(numbers)) for item in items]
        packed = pack(items, labels, self.places, keep_keys=not self._rules.shuffle)
        # 2. The split before sorting: each group of kind and split has shards of its own.
        groups = zip((item.kind for item in items), self._splits(items, hashes), strict=True)
        columns = [(self.group(*group) for group in groups), hashes, *zip(*self._amounts(items), strict=True)]
        fields = list(SORT_SCHEMA)[len(ROW_SCHEMA) :]
        arrays = [number_column(column, field.type) for column, field in zip(columns, fields, strict=True)]
        self.add_rows(pa.record_batch([*packed.columns, *arrays], schema=SORT_SCHEMA))
        return len(items)

    def add_rows(self, rows: pa.RecordBatch) -> None:
        """Add items that are rows of SORT_SCHEMA already."""
        self._sorter.add(rows)

    def group(self, kind: Kind, split: str) -> int:
        """Return the number of a kind and split. Raises UsageError for a split that cannot be part of a file's name."""
        number = self._groups.get((kind, split))
        if number is None:
            if not SPLIT_NAME.fullmatch(split):
                raise UsageError(f"split {split!r} of a source: need letters, digits and _, at most 32. Rename it.")
            number = self._groups[kind, split] = len(self._groups)
        return number

    def finish(self) -> ShardPlan:
        """Sort the rows, divide them into shards and write the plan. Raises OSError if there is no room for it."""
        # Labels are complete only now, so that their final numbers are given while the rows are read again.
        labels = sorted_labels(self._label_numbers)
        path = self._folder / PLAN_NAME
        outlines: list[ShardOutline] = []
        counts: Counter[int] = Counter()
        names = {number: group for group, number in self._groups.items()}
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROW_SCHEMA) as writer:
            for group, rows in self._shards(labels):
                writer.write_batch(rows.select(ROW_SCHEMA.names))
                outlines.append(_outline(*names[group], counts[group], rows, len(outlines)))
                counts[group] += 1
        # In the file the shards of all groups alternate, as their rows did.
        outlines.sort(key=lambda o: (KINDS.index(o.kind), o.split != "train", o.split != "val", o.split, o.name))
        return ShardPlan(path, self.places, labels, outlines)

    def _shards(self, labels: tuple[str, ...]) -> Iterator[tuple[int, pa.RecordBatch]]:
        cutters = {number: self._cutter(kind) for (kind, _), number in self._groups.items()}
        # From numbers in the order of appearance to indices into the sorted labels; -1 stays.
        new_numbers = np.array([*(labels.index(name) for name in self._label_numbers), -1], np.int32)
        for batch in self._sorter.sorted_batches():
            rows = with_column(batch, "label", new_numbers[numbers_of(batch.column("label"))])
            rows = self._with_unique_keys(rows)
            for number, part in _by_group(rows):
                for shard in cutters[number].cut(part):
                    yield number, shard
        for number, cutter in cutters.items():
            for shard in cutter.rest():
                yield number, shard

    def _cutter(self, kind: Kind) -> ImageCutter | ClipCutter:
        rules = self._rules
        if kind == "image":
            return ImageCutter(limits=rules.limits)
        return ClipCutter(limits=rules.limits, num_frames=rules.num_frames, stride_s=rules.clip_stride_s)

    def _splits(self, items: Sequence[SourceItem], hashes: npt.NDArray[np.uint64]) -> list[str]:
        """Return the split of each item: the source's own, else by the rule."""
        self.num_divided += list(map(attrgetter("split"), items)).count(None)
        name, _, value = self._rules.val.partition(":")
        splits = ["train"] * len(items)
        if name == "hash":
            splits = ["val" if chosen else "train" for chosen in is_val(hashes, float(value)).tolist()]
        elif name == "every":
            for row, item in enumerate(items):
                splits[row] = "val" if self._seen[item.kind, item.label] % int(value) == 0 else "train"
                self._seen[item.kind, item.label] += 1
        return [item.split or split for item, split in zip(items, splits, strict=True)]

    def _amounts(self, items: Sequence[SourceItem]) -> list[Amount]:
        rules = self._rules
        # All videos of a batch at once: a probe waits for the disk, and many wait side by side.
        videos = [item for item in items if item.kind == "clip"]
        facts = iter(self._probe(videos) if videos else ())
        return [
            amount_of_video(
                next(facts),
                num_frames=rules.num_frames,
                fps=rules.fps,
                stride_s=rules.clip_stride_s,
                short_side_px=rules.clip_short_side_px,
                codec=rules.codec,
            )
            if item.kind == "clip"
            else amount_of_image(item.size)
            for item in items
        ]

    def _with_unique_keys(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rename the second item of a key key_2, and so on; numbers that others have already are left out."""
        hashes = numbers_of(rows.column("hash"))
        is_repeated = hashes[1:] == hashes[:-1]
        if not is_repeated.any():
            return rows
        keys = keys_of(rows)
        last_numbers: dict[str, int] = {}
        # Rows in a run of equal hashes; a key that has only its hash in common with its neighbour stays.
        for row in np.flatnonzero(np.append(is_repeated, False) | np.append(False, is_repeated)).tolist():
            key = keys[row]
            if key in last_numbers:
                keys[row], last_numbers[key] = self._free_key(key, last_numbers[key] + 1)
            else:
                last_numbers[key] = 1
        at = rows.schema.get_field_index("key")
        return rows.set_column(at, rows.schema.field(at), text_column(keys))

    def _free_key(self, key: str, number: int) -> tuple[str, int]:
        while True:
            name = f"{key}_{number}"
            if not self._sorter.contains(key_hash(name) if self._rules.shuffle else name):
                return name, number
            number += 1


def sorted_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names; if all are numbers, by number, so that class 10 comes after 9."""
    names = list(names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None))


def is_val(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Return which items go into the validation split, a share of 0 to 1 of them, by the hashes of their keys alone."""
    # Other bits than those of the order: a split must not be the first shards of what it is taken from.
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) < np.uint64(int(share * 2**64))


def _by_group(rows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    groups = numbers_of(rows.column("group"))
    if (groups == groups[0]).all():
        yield int(groups[0]), rows
        return
    for number in np.unique(groups).tolist():
        yield number, rows.take(number_column(np.flatnonzero(groups == number), pa.int64()))


def _outline(kind: Kind, split: str, number: int, rows: pa.RecordBatch, batch_index: int) -> ShardOutline:
    num_samples = numbers_of(rows.column("num_samples")).astype(np.int64)
    return ShardOutline(
        name=f"{split}-{kind}s-{number:06d}.tar",
        kind=kind,
        split=split,
        num_items=rows.num_rows,
        num_samples=int(num_samples.sum()),
        num_bytes=int((num_samples * numbers_of(rows.column("sample_bytes"))).sum()),
        batch_index=batch_index,
    )
