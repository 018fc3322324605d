"""`manifest.json`: what a folder of shards holds, and where every sample's bytes are.

One JSON per folder. Per shard: name, kind, split, sample count, bytes, sha256, and the samples as columns
(key, offset, size, width, height; label for images; num_frames and fps for clips), `offset` and `size` being
the position of the sample's jpg/mp4 bytes inside the tar, so that a sample is read without parsing the tar.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipelines.atomic import write_atomically
from pipelines.errors import DataError, UsageError

__all__ = [
    "COLUMNS",
    "MANIFEST_NAME",
    "Kind",
    "Manifest",
    "SampleTable",
    "Shard",
    "load_manifest",
    "save_manifest",
    "shard_from_json",
    "shard_to_json",
]

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
Kind = Literal["image", "clip"]
Int64s = npt.NDArray[np.int64]
COLUMNS = ("offset", "size", "width", "height", "label", "num_frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar. `columns` has one int64 array per name in COLUMNS (label -1: none; num_frames 1: an image)."""

    name: str
    kind: Kind
    split: str
    shard_bytes: int
    sha256: str
    keys: tuple[str, ...]
    columns: dict[str, Int64s] = field(repr=False)
    fps: npt.NDArray[np.float64] = field(repr=False)

    @property
    def num_samples(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All shards of one folder. `labels`: class names; a sample's label is an index into them."""

    folder: Path
    shards: tuple[Shard, ...]
    labels: tuple[str, ...] = ()

    def select(self, kind: Kind, split: str) -> "SampleTable":
        """All samples of one kind and split, in shard order. Raises UsageError naming what there is instead."""
        chosen = [shard for shard in self.shards if shard.kind == kind and shard.split == split]
        if not chosen:
            have = ", ".join(sorted({f"{s.kind}s in split {s.split}" for s in self.shards})) or "nothing"
            raise UsageError(
                f"{self.folder}: no {kind}s in split {split}; it holds {have}. "
                "Name another split or folder, or build shards from other sources."
            )
        return SampleTable.of(self, chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """Samples of one kind and split as columns of equal length N. `shard_index` points into `shards`."""

    folder: Path
    kind: Kind
    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    shard_index: Int64s
    offset: Int64s
    size: Int64s
    width: Int64s
    height: Int64s
    label: Int64s
    num_frames: Int64s
    fps: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, manifest: Manifest, shards: Sequence[Shard]) -> "SampleTable":
        joined = {name: np.concatenate([s.columns[name] for s in shards]) for name in COLUMNS}
        return cls(
            folder=manifest.folder,
            kind=shards[0].kind,
            shards=tuple(shards),
            labels=manifest.labels,
            keys=tuple(key for shard in shards for key in shard.keys),
            shard_index=np.repeat(np.arange(len(shards)), [shard.num_samples for shard in shards]),
            fps=np.concatenate([shard.fps for shard in shards]),
            **joined,
        )


def save_manifest(manifest: Manifest) -> Path:
    """Write `manifest.json`, whole or not at all."""
    path = manifest.folder / MANIFEST_NAME
    content = {
        "format_version": FORMAT_VERSION,
        "num_samples": sum(shard.num_samples for shard in manifest.shards),
        "labels": list(manifest.labels),
        "shards": [shard_to_json(shard) for shard in manifest.shards],
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    return path


def load_manifest(folder: Path) -> Manifest:
    """Read and check a folder's manifest. Raises UsageError (no such folder or manifest) or DataError (damaged)."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"it has no {MANIFEST_NAME}"
        raise UsageError(
            f"{folder}: not a folder of shards ({what}). Build one: fourfold shards build SRC --out {folder}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version == FORMAT_VERSION:
            shards = tuple(shard_from_json(item) for item in content["shards"])
            return Manifest(folder=folder, shards=shards, labels=tuple(content["labels"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}). Build the shards again.") from error
    raise DataError(
        f"{path}: format_version {version!r}; this fourfold reads {FORMAT_VERSION}. Build the shards again."
    )


def shard_to_json(shard: Shard) -> dict[str, Any]:
    """A shard's entry in the manifest."""
    samples: dict[str, Any] = {"key": list(shard.keys)}
    samples |= {name: shard.columns[name].tolist() for name in COLUMNS}
    samples["fps"] = shard.fps.tolist()
    return {
        "name": shard.name,
        "kind": shard.kind,
        "split": shard.split,
        "num_samples": shard.num_samples,
        "shard_bytes": shard.shard_bytes,
        "sha256": shard.sha256,
        "samples": samples,
    }


def shard_from_json(item: dict[str, Any]) -> Shard:
    """The shard of one entry. Raises ValueError, KeyError or TypeError if the entry is damaged."""
    samples = item["samples"]
    keys = tuple(str(key) for key in samples["key"])
    columns = {name: np.asarray(samples[name], dtype=np.int64) for name in COLUMNS}
    fps = np.asarray(samples["fps"], dtype=np.float64)
    lengths = {len(keys), item["num_samples"], len(fps), *(len(column) for column in columns.values())}
    if len(lengths) != 1:
        raise ValueError(f"shard {item['name']}: columns of different lengths {sorted(lengths)}")
    if item["kind"] not in ("image", "clip") or Path(item["name"]).name != item["name"]:
        raise ValueError(f"shard {item['name']!r} of kind {item['kind']!r}")
    return Shard(
        name=item["name"],
        kind=item["kind"],
        split=item["split"],
        shard_bytes=int(item["shard_bytes"]),
        sha256=item["sha256"],
        keys=keys,
        columns=columns,
        fps=fps,
    )
