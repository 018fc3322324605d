"""Features kept by content: requests in, memory-mapped arrays out. What is kept is never made again.

A file's key is the sha256 of the trunk's weights, the images, their size, the unit, the view, the pooling and the batch
norm statistics, and of the code of the pass. All evaluations of a trunk therefore share one pass over the images.

Letters: M units, V views, N images, D = channels * pool * pool features.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from benchmarks.evaluations.base import Context, Int64s
from benchmarks.evaluations.content import split_content, text_content
from benchmarks.evaluations.features.extract import FeatureFile, image_inputs, write_features
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.trunk_source import best_device
from benchmarks.source_code import code_digest, installed_sources
from pipelines.base.atomic import atomic_file
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import SampleTable, load_manifest
from training.parallel import cpu_threads
from training.trunk import Trunk, recalibrate

__all__ = ["Features", "features_of"]

FEATURES_VERSION = 1
"""Raise by 1 when files are kept in another way: those of before then no longer count."""
EXTRACTING_MODULES = ("benchmarks.evaluations.features.extract",)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of a split. `values_MVND[unit][view]`: float32 (N, D), read from the file as it is used."""

    values_MVND: Sequence[Sequence[Floats]]
    labels_N: Int64s

    def last_ND(self) -> Floats:
        """Return the unmirrored features of the last unit, memory-mapped."""
        return self.values_MVND[-1][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One file of features."""

    path: Path
    request: FeatureRequest
    unit: int
    is_flipped: bool


@dataclass(slots=True, kw_only=True)
class _Store:
    """Store of one trunk on one folder of images."""

    context: Context
    device: torch.device = field(default_factory=best_device)
    num_units: int = 0

    def trunk(self) -> Trunk:
        trunk = self.context.the_trunk().load(self.device)
        self.num_units = trunk.num_units
        return trunk

    def entries(self, request: FeatureRequest) -> list[list[_Entry]]:
        """Return the files of a request by unit and view."""
        units = range(self.num_units) if request.units == "all" else [self.num_units - 1]
        views = (False, True) if request.flipped_view else (False,)
        return [[self._entry(request, unit, is_flipped) for is_flipped in views] for unit in units]

    def _entry(self, request: FeatureRequest, unit: int, is_flipped: bool) -> _Entry:
        images = self.context.the_images()
        identity: dict[str, Any] = {
            "version": FEATURES_VERSION,
            "code": _extracting_code(),
            "trunk": self.context.the_trunk().content,
            "images": split_content(images, "image", request.split),
            "canvas_px": request.canvas_px,
            "unit": unit,
            "is_flipped": is_flipped,
            "pooling": f"{request.pooling} {request.pool}",
        }
        if request.is_recalibrated:
            # Statistics depend on the images they are estimated on, and on how these are batched.
            identity["statistics"] = split_content(images, "image", self.context.train_split)
            identity["batch_size"] = request.batch_size
        path = self.context.store / f"{text_content(json.dumps(identity, sort_keys=True))}.npy"
        return _Entry(path=path, request=request, unit=unit, is_flipped=is_flipped)


@lru_cache(maxsize=1)
def _extracting_code() -> str:
    """Return the digest of the code that turns images into features: trunk, decoding, pooling."""
    return code_digest(installed_sources().digests(EXTRACTING_MODULES))


def features_of(context: Context, requests: Sequence[FeatureRequest]) -> list[Features]:
    """Return the features of each request, made first where they are not kept.

    The pass makes those of `context.wanted`, too. Raises UsageError where the disk has no room for them.
    """
    store = _Store(context=context)
    trunk = store.trunk()
    context.store.mkdir(parents=True, exist_ok=True)
    # One process makes a trunk's features; another that wants them waits and finds them.
    with FileLock(context.store / f"{context.the_trunk().content[:12]}.lock"):
        if _missing(store, requests):
            _make(store, trunk, _missing(store, [*requests, *context.wanted]))
    return [_read(store, request) for request in requests]


def _missing(store: _Store, requests: Iterable[FeatureRequest]) -> list[_Entry]:
    entries = [entry for request in requests for views in store.entries(request) for entry in views]
    return list({entry.path: entry for entry in entries if not entry.path.is_file()}.values())


def _make(store: _Store, trunk: Trunk, missing: list[_Entry]) -> None:
    images = store.context.the_images()
    manifest = load_manifest(images)
    tables = {entry.request.split: manifest.select("image", entry.request.split) for entry in missing}
    _check_room(store.context.store, [_num_bytes(entry, tables, trunk) for entry in missing])
    # On a busy machine, threads that wait for each other took 14 times as long as one core fewer.
    with cpu_threads(0):
        # 1. As trained first: estimating statistics changes the trunk in place.
        for sizes in sorted({_sizes(entry) for entry in missing}):
            is_recalibrated, canvas_px, batch_size = sizes
            ready = trunk
            if is_recalibrated:
                ready = store.trunk()
                train = store.context.train_split
                at = {"canvas_px": canvas_px, "batch_size": batch_size}
                recalibrate(ready, image_inputs(images, train, **at, device=store.device))
            # 2. One pass per split makes all units, views and poolings at once.
            for split, table in tables.items():
                chosen = [one for one in missing if _sizes(one) == sizes and one.request.split == split]
                if chosen:
                    _pass(ready, table, chosen, canvas_px, batch_size)


def _pass(trunk: Trunk, table: SampleTable, entries: list[_Entry], canvas_px: int, batch_size: int) -> None:
    """Make files of one split. They get their names once all are whole."""
    with ExitStack() as stack:
        files = []
        for entry in entries:
            file = stack.enter_context(atomic_file(entry.path))
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(table), _num_features(entry, trunk))}
            np.lib.format.write_array_header_1_0(file, header)
            files.append(
                FeatureFile(
                    file=file,
                    unit=entry.unit,
                    is_flipped=entry.is_flipped,
                    pooling=entry.request.pooling,
                    pool=entry.request.pool,
                )
            )
        write_features(trunk, table, files, canvas_px=canvas_px, batch_size=batch_size)


def _read(store: _Store, request: FeatureRequest) -> Features:
    table = load_manifest(store.context.the_images()).select("image", request.split)
    values = [[np.load(entry.path, mmap_mode="r") for entry in views] for views in store.entries(request)]
    return Features(values_MVND=values, labels_N=table.label.astype(np.int64))


def _sizes(entry: _Entry) -> tuple[bool, int, int]:
    request = entry.request
    return request.is_recalibrated, request.canvas_px, request.batch_size


def _num_features(entry: _Entry, trunk: Trunk) -> int:
    return trunk.num_channels * entry.request.pool**2


def _num_bytes(entry: _Entry, tables: dict[str, SampleTable], trunk: Trunk) -> int:
    return 4 * len(tables[entry.request.split]) * _num_features(entry, trunk)


def _check_room(folder: Path, sizes_bytes: list[int]) -> None:
    needed_bytes, free_bytes = sum(sizes_bytes), shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise UsageError(
            f"{folder}: features need {needed_bytes / 2**30:.1f} GiB, {free_bytes / 2**30:.1f} GiB are free. "
            "Free some space, or use a smaller pool, augment: none, lasso: false, or fewer images."
        )
