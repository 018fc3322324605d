"""Hand-made folders of shards: plain tars and a manifest, written without the code under test."""

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from pipelines.shards.format.manifest import SAMPLE_SCHEMA, ManifestWriter, Shard
from pipelines.shards.format.storage import storage_of


def write_shards(folder: Path, splits: Mapping[str, Sequence[tuple[int, np.ndarray]]], *, num_labels: int = 0) -> Path:
    """One tar of PNGs per split from (label, uint8 RGB image) pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    count = num_labels or 1 + max(label for samples in splits.values() for label, _ in samples)
    with ManifestWriter(storage_of(folder), [f"class{index}" for index in range(count)]) as manifest:
        for split, samples in splits.items():
            manifest.add(*_write_tar(folder, split, samples))
    return folder


def coloured(label: int, rng: np.random.Generator, size_px: int = 32) -> np.ndarray:
    """A noisy image whose colour and stripes tell its label (0 to 3)."""
    image = rng.integers(0, 60, (size_px, size_px, 3))
    image[..., label % 3] += 120
    image[:: 2 + label] += 40
    return image.clip(0, 255).astype(np.uint8)


def _write_tar(folder: Path, split: str, samples: Sequence[tuple[int, np.ndarray]]) -> tuple[Shard, pa.RecordBatch]:
    path = folder / f"{split}-images-000000.tar"
    members = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, (label, image) in enumerate(samples):
            encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
            for suffix, content in (("png", encoded), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{split}{index:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            members.append((f"{split}{index:04d}", len(encoded), image.shape, label))
    with tarfile.open(path) as tar:
        offsets = {Path(member.name).stem: member.offset_data for member in tar if member.name.endswith("png")}
    columns = {
        "key": [key for key, *_ in members],
        "offset": [offsets[key] for key, *_ in members],
        "size": [size for _, size, *_ in members],
        "width": [shape[1] for *_, shape, _ in members],
        "height": [shape[0] for *_, shape, _ in members],
        "label": [label for *_, label in members],
        "num_frames": [1] * len(members),
        "fps": [0.0] * len(members),
    }
    shard = Shard(
        name=path.name,
        kind="image",
        split=split,
        num_samples=len(members),
        shard_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return shard, pa.RecordBatch.from_pydict(columns, schema=SAMPLE_SCHEMA)
